# Every operator, function and part of a request. The dump shows how a condition was understood.
defaults {
  balance = "round_robin"
}
list "office" {}
list "guests" { cidrs = "192.0.2.0/28" }
frontend "web" {
  bind = ["127.0.0.1"]
  http = 8080

  route "precedence" {
    when    = method == "GET" || method == "HEAD" && !(path == "/a" || path == "/b")
    backend = "web"
  }
  route "flat" {
    when    = (method == "GET" && host == "A.example.com") && (path != "/x" && cookie["c"] == "1")
    backend = "web"
  }
  route "list" {
    when    = in_list(client, "office") && !in_list(client, "guests")
    backend = "web"
  }
  route "functions" {
    when    = one_of(method, ["PUT", "POST"]) && in_cidr(client, ["10.0.0.0/8", "192.0.2.1", "2001:db8::/32"])
    backend = "web"
  }
  route "strings" {
    when    = starts_with(lower(path), "/admin") || matches(header["User-Agent"], "(?i)bot|crawl\\w+")
    backend = "web"
  }
  route "turned" {
    when    = "a$${b}" != query["q q"] && !!starts_with(host, "WWW.")
    backend = "web"
  }
  route "one" {
    when    = in_cidr(client, "10.0.0.0/8") && client != "10.1.2.3"
    backend = "web"
  }
  route "lines" {
    when = (
      header["a"] == "1" || # a comment
      header["b"] == "2"
    )
    backend = "web"
  }
  route "negated" {
    when    = lower(cookie["x"]) != "off"
    backend = "web"
  }
}
backend "web" {
  server "s1" { address = "127.0.0.1:9001" }
}
