package config

// Log is the access log: a line for each request and each session, on every node. A nil Log is none.
type Log struct {
	Format  LogFormat
	To      string   // "stdout", "syslog", "syslog://ADDRESS:PORT", or the absolute path of a file
	Headers []string // of requests, in lower case: what lines show of them
	Pos     Pos
}

// LogFormat is the form of the access log's lines.
type LogFormat uint8

const (
	LogJSON LogFormat = iota + 1
	LogHAProxy
)

func (f LogFormat) String() string {
	switch f {
	case LogJSON:
		return "json"
	case LogHAProxy:
		return "haproxy"
	}
	return "unknown"
}
