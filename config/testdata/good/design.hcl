# The example of the design.
vip "public" {
  address = "192.0.2.10/24"
  prefer  = ["lb1", "lb2"] # optional
}

frontend "shop" {
  vip          = "public"
  http         = 80
  https        = 443
  redirect     = "https"
  certificates = ["shop.example.com"]

  route "api" {
    host    = ["api.example.com"]
    path    = "/v1/*"
    when    = header["x-canary"] == "1" && method != "POST"
    backend = "api"
  }
  backend = "shop"
}

backend "api" {
  server "a1" { address = "198.51.100.41:8080" }
}

backend "shop" {
  balance = "least_conn"
  sticky "cookie" { name = "SKEIN" }
  check "http" {
    path     = "/healthz"
    interval = "2s"
  }
  server "s1" { address = "198.51.100.21:8080" }
  server "s2" {
    address         = "198.51.100.22:8080"
    weight          = 2
    max_connections = 200
  }
}

frontend "db" {
  vip     = "public"
  tcp     = 5432
  backend = "postgres"
}

backend "postgres" {
  balance = "source_hash"
  sticky "table" {
    key = client
    ttl = "30m"
  }
  check "tcp" {}
  server "p1" { address = "198.51.100.31:5432" }
  server "p2" {
    address = "198.51.100.32:5432"
    backup  = true
  }
}
