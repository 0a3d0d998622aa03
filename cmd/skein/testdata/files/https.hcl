frontend "shop" {
  bind         = "127.0.0.1"
  http         = 80
  https        = 443
  redirect     = "https"
  certificates = ["shop"]
  backend      = "shop"
}
backend "shop" {
  server "s1" { address = "198.51.100.21:8080" }
}
