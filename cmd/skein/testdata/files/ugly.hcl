backend   "b" {
 server "s" {
   address="127.0.0.1:80"
 }
}
frontend "f" {
  bind = ["127.0.0.1"]
  http = 80
  backend = "b"
}
