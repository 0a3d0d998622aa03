# The lab's configuration, applied once from any node: sudo skein apply edge.hcl
vip "public" {
  address = "192.168.56.100/24"
}

frontend "web" {
  vip     = "public"
  http    = 80
  backend = "web"
}

backend "web" {
  balance = "least_conn"
  sticky "cookie" { name = "SKEIN" }
  check "http" {
    path     = "/healthz"
    interval = "1s"
  }
  server "s1" { address = "192.168.56.21:80" }
  server "s2" { address = "192.168.56.22:80" }
}

# Connections that last: what a move of the address must not cut.
frontend "echo" {
  vip     = "public"
  tcp     = 7000
  backend = "echo"
}

backend "echo" {
  check "tcp" {}
  server "s1" { address = "192.168.56.21:7000" }
  server "s2" { address = "192.168.56.22:7000" }
}
