frontend "f" {
  bind    = ["127.0.0.1"]
  http    = 8080
  backend = "b"
}
backend "b" {
  server "s" { address = "127.0.0.1:9000" }
}
backend "unused" {
  server "s" { address = "127.0.0.1:9001" }
}
