vip "public" {
  address         = "192.0.2.10/24"
  prefer          = ["lb1", "lb7"]
  failback        = "10m"
  group           = "edge"
  minimum_servers = 2
  virtual_mac     = 51
}

vip "inner" {
  address = "198.51.100.10/24"
  group   = "edge"
}

frontend "shop" {
  vip     = ["public", "inner"]
  http    = 80
  backend = "shop"
}

backend "shop" {
  server "s1" { address = "198.51.100.21:8080" }
  server "s2" { address = "198.51.100.22:8080" }
}
