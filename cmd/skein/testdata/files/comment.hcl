# The edge of the shop.
vip "public" {
  address = "192.0.2.10/24"
  prefer  = ["lb1", "lb2"]
}

frontend "shop" {
  vip     = "public"
  http    = 80
  backend = "shop"

  route "api" {
    path    = "/v1/*"
    backend = "api"
  }
}

frontend "db" {
  vip     = "public"
  tcp     = 5432
  backend = "postgres"
}

backend "shop" {
  balance = "least_conn"
  sticky "cookie" { name = "SKEIN" }
  check "http" { path = "/healthz" }
  server "s1" { address = "198.51.100.21:8080" }
  server "s2" {
    address         = "198.51.100.22:8080"
    weight          = 2
    max_connections = 200
  }
}

backend "api" {
  check "tcp" {}
  server "a1" { address = "198.51.100.41:9000" }
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
# another comment
