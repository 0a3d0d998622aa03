defaults {
  timeouts { handshake = "4s" }
}
vip "public" { address = "192.0.2.10/24" }
frontend "shop" {
  vip          = "public"
  http         = 80
  https        = [443, 8443]
  redirect     = "https"
  certificates = ["shop.example.com", "shop.example.org"]
  tls_options {
    min_version  = "1.3"
    strict_names = true
  }
  timeouts { handshake = "3s" }
  route "admin" {
    when    = sni == "Admin.example.com" && one_of(sni, ["a.example.com", "admin.example.com"])
    backend = "shop"
  }
  backend = "shop"
}
frontend "ldaps" {
  vip          = "public"
  tcp          = 389
  tls          = 636
  certificates = "ldap.example.com"
  backend      = "ldap"
}
frontend "only" {
  vip          = "public"
  https        = 9443
  certificates = "shop.example.com"
  backend      = "shop"
}
backend "shop" {
  server "s1" { address = "198.51.100.21:8080" }
}
backend "ldap" {
  server "l1" { address = "198.51.100.31:389" }
}
