vip "public" {
  address = ["192.0.2.10/24", "2001:db8::10/64"]
}
vip "six" {
  address   = "2001:db8:1::10/128"
  interface = "eth1"
  virtual_mac = 51
}
frontend "shop" {
  vip  = ["public", "six"]
  http = 80
  route "literal" {
    host    = "[2001:db8::10]"
    when    = in_cidr(client, "2001:db8::/32")
    backend = "shop"
  }
  backend = "shop"
}
frontend "all" {
  bind    = ["0.0.0.0", "::"]
  tcp     = 81
  backend = "shop"
}
backend "shop" {
  server "s1" { address = "[2001:db8::21]:8080" }
  server "s2" { address = "198.51.100.21:8080" }
}
