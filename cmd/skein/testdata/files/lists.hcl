list "office" { cidrs = ["198.51.100.0/24", "2001:db8::/32"] }
list "banned" {}

frontend "shop" {
  bind  = ["192.0.2.1"]
  http  = 80
  allow = "office"
  deny  = "banned"
  route "inside" {
    when = in_list(client, "office")
    respond { status = 204 }
  }
}
