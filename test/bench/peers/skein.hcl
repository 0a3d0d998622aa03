# skein with nothing that a user would not write: it has no switches for speed. Its counters are always on.
log {
  to     = "stdout"
  format = "haproxy"
}

defaults {
  timeouts {
    idle = "300s"
  }
  check "http" {
    path     = "/health"
    interval = "2s"
  }
}

frontend "web" {
  bind    = ["127.0.0.1"]
  http    = 8200
  backend = "web"
}

backend "web" {
  server "s1" { address = "127.0.0.1:8000" }
}

# Five routes and a cookie that keeps a browser on its server.
frontend "shop" {
  bind = ["127.0.0.1"]
  http = 8202

  route "api" {
    host    = "api.example.com"
    backend = "web"
  }
  route "static" {
    path    = "/static/*"
    backend = "web"
  }
  route "images" {
    path    = "/images/*"
    backend = "web"
  }
  route "canary" {
    header  = { "x-canary" = "1" }
    backend = "web"
  }
  route "login" {
    path    = "/login"
    method  = "POST"
    backend = "web"
  }
  backend = "shop"
}

backend "shop" {
  sticky "cookie" { name = "SERVER" }
  server "s1" { address = "127.0.0.1:8000" }
  server "s2" { address = "127.0.0.2:8000" }
}

frontend "tcp" {
  bind    = ["127.0.0.1"]
  tcp     = 8203
  backend = "tcp"
}

backend "tcp" {
  server "s1" { address = "127.0.0.1:8000" }
}

frontend "tls" {
  bind         = ["127.0.0.1"]
  https        = 8205
  certificates = ["ecdsa"]
  backend      = "web"
}

frontend "tls-rsa" {
  bind         = ["127.0.0.1"]
  https        = 8206
  certificates = ["rsa"]
  backend      = "web"
}
