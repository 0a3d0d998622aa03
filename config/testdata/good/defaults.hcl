# A defaults block speaks for what follows it, up to the next that says otherwise.
backend "before" {
  server "s1" { address = "198.51.100.21:8080" }
}

defaults {
  balance = "least_conn"
  timeouts {
    headers     = "3s"
    idle        = "20s"
    connect     = "1s"
    server_idle = "9s"
  }
  check "http" {
    path     = "/up"
    interval = "5s"
    timeout  = "2s"
    rise     = 1
  }
}

frontend "web" {
  bind    = ["127.0.0.1"]
  http    = 8080
  backend = "inherits"
  route "own" {
    path    = "/own"
    backend = "own"
  }
  route "none" {
    path    = "/none"
    backend = "none"
  }
  route "before" {
    path    = "/before"
    backend = "before"
  }
  route "later" {
    path    = "/later"
    backend = "later"
  }
  route "quick" {
    path    = "/quick"
    backend = "quick"
  }
}

backend "inherits" {
  server "s1" { address = "198.51.100.22:8080" }
}
backend "own" {
  balance = "round_robin"
  check "tcp" {
    fall = 5
  }
  timeouts {
    connect = "2s"
  }
  server "s1" { address = "198.51.100.23:8080" }
}
backend "none" {
  check "none" {}
  server "s1" { address = "198.51.100.24:8080" }
}

defaults {
  check "none" {}
  timeouts {
    response = "7s"
  }
}
backend "later" {
  server "s1" { address = "198.51.100.25:8080" }
}
backend "quick" {
  check "tcp" {
    interval = "3s"
  }
  server "s1" { address = "198.51.100.26:8080" }
}
