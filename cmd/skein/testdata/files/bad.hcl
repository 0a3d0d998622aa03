vip "public" { address = "192.0.2.10/24" }
frontend "shop" {
  vip     = "publik"
  http    = 80
  backend = "shop"
}
backend "shop" {
  balnce = "least_conn"
  server "s1" { address = "198.51.100.21" }
}
