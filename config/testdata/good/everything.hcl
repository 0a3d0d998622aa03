# Every block and every attribute once, none at its default.
log {
  format  = "haproxy"
  to      = "/var/log/skein/access.log"
  headers = ["User-Agent", "Referer"]
}
cluster {
  pair     = "tiebreak"
  tiebreak = ["192.0.2.1", "2001:db8::1"]
}
vip "public" {
  address   = ["192.0.2.10/24", "192.0.2.11/24"]
  interface = "eth0"
  prefer    = "lb1"
  failback  = "10m"
  group     = "edge"

  minimum_servers = 2
}
vip "inside" {
  address   = "198.51.100.5/32"
  interface = "eth1"
  group     = "edge"
  vrrp {
    router_id = 51
    version   = 2
    priority  = 150
    interval  = "2s"
    preempt   = true
  }
}

list "office" { cidrs = ["198.51.100.0/24", "2001:db8::/32", "203.0.113.7"] }
list "banned" {}
list "proxies" { cidrs = "192.0.2.128/25" }

limit "per_client" {
  connections = 20
  rate        = "100/s"
  burst       = 200
  status      = 503
  ipv6_prefix = 56
  size        = 50000
}
limit "logins" {
  key  = header["X-User"]
  rate = "600/m"
}

frontend "shop" {
  limit           = "per_client"
  max_connections = 10000
  keepalive_requests = 1000
  max_head        = "16KiB"
  max_headers     = 64
  max_body        = "10MiB"

  allow   = ["office", "proxies"]
  deny    = "banned"
  trusted = "proxies"
  vip  = ["public", "inside"]
  http = [80, 8080]
  log  = false
  timeouts {
    headers = "5s"
    client  = "30s"
    idle    = "1m30s"
  }
  min_rate {
    request  = 1000
    response = 0
    grace    = "3s"
  }
  request_headers {
    set    = { "X-Edge" = "skein", x-quoted = "a \"b\" $${c}" }
    add    = { Via-Edge = "1" }
    remove = ["X-Debug", "X-Trace"]
  }
  response_headers {
    set    = { Strict-Transport-Security = "max-age=31536000" }
    remove = "Server"
  }

  route "everything" {
    limit   = "logins"
    host    = ["Shop.Example.com", "*.shop.example.com"]
    path    = ["/v1", "/v1/*"]
    method  = ["GET", "HEAD"]
    header  = { X-Tenant = "a", "x-empty" = "" }
    query   = { "debug" = "1" }
    cookie  = { beta = "yes" }
    when    = client != "198.51.100.9" && (header["X-Canary"] == "1" || "b" == query["v"])
    backend = "api"
    request_headers {
      set = { X-Route = "everything" }
    }
    response_headers {
      add = { X-Route = "everything" }
    }
  }
  route "old" {
    path     = "/old/*"
    redirect = "/new"
    status   = 301
  }
  route "away" {
    host     = "old.example.com"
    redirect = "https://www.example.com/"
  }
  route "teapot" {
    path = "/teapot"
    respond {
      status       = 418
      body         = "short\nand stout\n"
      content_type = "text/html"
    }
  }
  route "gone" {
    path = "/gone"
    respond { status = 410 }
  }
  route "robots" {
    path = "/robots.txt"
    respond {
      status = 200
      body   = <<EOT
User-agent: *
Disallow: /
EOT
    }
  }
}

frontend "db" {
  bind    = ["127.0.0.1", "198.51.100.5"]
  tcp     = 5432
  backend = "db"
  timeouts {
    client = "1h"
  }
}

backend "api" {
  balance = "least_conn"
  on_down = "close"
  sticky "cookie" {
    name      = "API"
    secure    = true
    http_only = false
    same_site = "none"
  }
  check "http" {
    interval = "500ms"
    rise     = 1
    fall     = 2
    port     = 8081
    path     = "/healthz?full=1"
    host     = "api.example.com"
    expect {
      status = ["2xx", "301-302", 404, "418"]
      body   = "ok"
    }
  }
  timeouts {
    connect  = "1s"
    response = "30s"
    server   = "45s"
    idle     = "10s"
  }
  retries { attempts = 0 }
  server "a1" {
    address         = "198.51.100.41:8080"
    weight          = 256
    max_connections = 1000
  }
  server "a2" {
    address = "198.51.100.42:8080"
    weight  = 0
  }
  server "a3" {
    address = "198.51.100.43:8080"
    backup  = true
  }
}

backend "db" {
  balance = "source_hash"
  on_down = "keep"
  sticky "table" {
    key  = client
    ttl  = "1h"
    size = 5000
  }
  check "icmp" {}
  server "d1" { address = "198.51.100.31:5432" }
}

frontend "cache" {
  bind    = ["127.0.0.1"]
  http    = 8082
  backend = "cache"
}

backend "cache" {
  balance = "hash"
  hash {
    key   = header["X-User"]
    bound = 1.25
  }
  max_requests    = 5000
  slow_start      = "30s"
  minimum_healthy = 0.5
  outlier {
    failures    = 3
    window      = "10s"
    eject       = "20s"
    max_ejected = 0.25
  }
  queue {
    length  = 100
    timeout = "2s"
  }
  retries {
    attempts = 1
    on       = ["503", "connect", "timeout", "closed"]
    budget   = 0.1
  }
  server "c1" { address = "198.51.100.51:8080" }
}
