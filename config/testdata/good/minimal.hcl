frontend "web" {
  bind    = ["127.0.0.1"]
  http    = 8080
  backend = "web"
}
backend "web" {
  server "s1" { address = "127.0.0.1:9001" }
}
