package h1

import (
	"strings"
	"testing"
)

// Each case is a sentence of RFC 9112 (or 9110 where it says so) as an exchange: what arrives, and either the name of the
// Error or the head that goes on to the server. In both, lines are separated by "|" for CR LF. The lines that AppendHead adds
// to every request (Via) are left out.
var requestCases = []struct{ section, sentence, in, want string }{
	{"2.1", "a message is a start-line, fields, an empty line", "GET / HTTP/1.1|Host: a||", "GET / HTTP/1.1|Host: a||"},
	{"2.2", "an empty line before the request-line is ignored", "|GET / HTTP/1.1|Host: a||", "GET / HTTP/1.1|Host: a||"},
	{"2.2", "but one only", "||GET / HTTP/1.1|Host: a||", "bad_request_line"},
	{"2.2", "a bare LF does not end the request line", "GET / HTTP/1.1\nHost: a||", "bare_lf"},
	{"2.2", "a bare LF does not end a field line", "GET / HTTP/1.1|Host: a\nX: y||", "bare_lf"},
	{"2.2", "a bare LF does not end the head", "GET / HTTP/1.1|Host: a|\n", "bare_lf"},
	{"2.2", "nor stand for an empty line before the request", "\nGET / HTTP/1.1|Host: a||", "bare_lf"},
	{"2.2", "a bare CR within a value is refused", "GET / HTTP/1.1|Host: a|X: a\rb||", "bare_cr"},
	{"2.2", "a bare CR at the end of the head is refused", "GET / HTTP/1.1|Host: a|\rGET||", "bare_cr"},
	{"2.2", "a bare CR in the request line is refused", "GET /\r HTTP/1.1|Host: a||", "bad_target"},
	{"2.2", "white space between the start-line and the first field is refused", "GET / HTTP/1.1| Host: a||", "folded_field"},
	{"2.3", "the version is case-sensitive", "GET / http/1.1|Host: a||", "bad_version"},
	{"2.3", "another major version is not spoken", "GET / HTTP/2.0|Host: a||", "unsupported_version"},
	{"2.3", "nor an older one", "GET / HTTP/0.9|Host: a||", "unsupported_version"},
	{"2.3", "the preface of HTTP/2 is not mistaken for a request", "PRI * HTTP/2.0||SM||", "unsupported_version"},
	{"2.3", "a version has one digit on each side", "GET / HTTP/1.10|Host: a||", "bad_request_line"},
	{"2.3", "a version has digits", "GET / HTTP/1.x|Host: a||", "bad_version"},
	{"2.3", "a version has a point", "GET / HTTP/1,1|Host: a||", "bad_version"},
	{"2.3", "a proxy sends its own version", "GET / HTTP/1.0|Host: a||", "GET / HTTP/1.1|Host: a||"},
	{"2.5 of 9110", "a higher minor version is read as the highest known", "GET / HTTP/1.7|Host: a||", "GET / HTTP/1.1|Host: a||"},

	{"3", "the parts of the request-line have one SP between them", "GET  / HTTP/1.1|Host: a||", "bad_target"},
	{"3", "and not two before the version", "GET /  HTTP/1.1|Host: a||", "bad_target"},
	{"3", "and no HTAB", "GET\t/ HTTP/1.1|Host: a||", "bad_method"},
	{"3", "nothing stands before the method", " GET / HTTP/1.1|Host: a||", "bad_method"},
	{"3", "nothing stands behind the version", "GET / HTTP/1.1 |Host: a||", "bad_request_line"},
	{"3", "a request-line has a version", "GET /|Host: a||", "bad_request_line"},
	{"3", "a request-line has a target", "GET HTTP/1.1|Host: a||", "bad_request_line"},
	{"3.1", "the method is a token", "G@T / HTTP/1.1|Host: a||", "bad_method"},
	{"3.1", "an unknown method is passed on", "BREW /pot HTTP/1.1|Host: a||", "BREW /pot HTTP/1.1|Host: a||"},
	{"3.1", "the method is case-sensitive and stays as it is", "get / HTTP/1.1|Host: a||", "get / HTTP/1.1|Host: a||"},
	{"3.2", "no white space is allowed in the target", "GET /a b HTTP/1.1|Host: a||", "bad_target"},
	{"3.2", "nor a control character", "GET /a\x01b HTTP/1.1|Host: a||", "bad_target"},
	{"3.2", "nor DEL", "GET /a\x7fb HTTP/1.1|Host: a||", "bad_target"},
	{"3.2", "nor NUL", "GET /a\x00b HTTP/1.1|Host: a||", "bad_target"},
	{"3.2", "nor a byte above ASCII", "GET /\xc3\xa4 HTTP/1.1|Host: a||", "bad_target"},
	{"3.2", "nor a fragment", "GET /a#b HTTP/1.1|Host: a||", "bad_target"},
	{"3.2", "nor a fragment in the query", "GET /a?b#c HTTP/1.1|Host: a||", "bad_target"},
	{"3.2", "nor a backslash that some read as a slash", `GET /a\..\b HTTP/1.1|Host: a||`, "bad_target"},
	{"3.2", "nor quotes and brackets of markup", `GET /<a> HTTP/1.1|Host: a||`, "bad_target"},
	{"3.2", "what browsers send unescaped is passed on", "GET /a[1]{b}?c[]=^`\\ HTTP/1.1|Host: a||", "GET /a[1]{b}?c[]=^`\\ HTTP/1.1|Host: a||"},
	{"3.2", "a target of another kind is refused", "GET a HTTP/1.1|Host: a||", "bad_target"},
	{"3.2", "HTTP/1.1 needs a Host", "GET / HTTP/1.1|X: y||", "missing_host"},
	{"3.2", "with an absolute target too", "GET http://a/ HTTP/1.1|X: y||", "missing_host"},
	{"3.2", "HTTP/1.0 does not", "GET / HTTP/1.0||", "GET / HTTP/1.1|Host: 198.18.0.9||"},
	{"3.2", "there is one Host", "GET / HTTP/1.1|Host: a|Host: b||", "duplicate_host"},
	{"3.2", "even when both are the same", "GET / HTTP/1.1|Host: a|host: a||", "duplicate_host"},
	{"3.2", "a Host with an invalid value is refused: white space", "GET / HTTP/1.1|Host: a b||", "bad_host"},
	{"3.2", "a comma", "GET / HTTP/1.1|Host: a,b||", "bad_host"},
	{"3.2", "a slash", "GET / HTTP/1.1|Host: a/b||", "bad_host"},
	{"3.2", "user information", "GET / HTTP/1.1|Host: u:p@a||", "bad_host"},
	{"3.2", "a port that is no number", "GET / HTTP/1.1|Host: a:8o||", "bad_host"},
	{"3.2", "a port that is too high", "GET / HTTP/1.1|Host: a:65536||", "bad_host"},
	{"3.2", "a port that is negative", "GET / HTTP/1.1|Host: a:-1||", "bad_host"},
	{"3.2", "a port that is too long", "GET / HTTP/1.1|Host: a:000080||", "bad_host"},
	{"3.2", "port 0", "GET / HTTP/1.1|Host: a:0||", "bad_host"},
	{"3.2", "two ports", "GET / HTTP/1.1|Host: a:1:2||", "bad_host"},
	{"3.2", "a port without a host", "GET / HTTP/1.1|Host: :80||", "bad_host"},
	{"3.2", "a host without a name (RFC 9110 4.2.1)", "GET / HTTP/1.1|Host:||", "bad_host"},
	{"3.2", "a broken percent-encoding", "GET / HTTP/1.1|Host: a%2||", "bad_host"},
	{"3.2", "a name that is longer than the DNS knows", "GET / HTTP/1.1|Host: " + strings.Repeat("a.", 127) + "a||", "bad_host"},
	{"3.2", "an IPv6 address that is none", "GET / HTTP/1.1|Host: [::1::]||", "bad_host"},
	{"3.2", "an IPv6 address without an end", "GET / HTTP/1.1|Host: [::1||", "bad_host"},
	{"3.2", "something behind an IPv6 address", "GET / HTTP/1.1|Host: [::1]x||", "bad_host"},
	{"3.2", "an IPv6 address and a port are fine", "GET / HTTP/1.1|Host: [2001:db8::1]:80||", "GET / HTTP/1.1|Host: [2001:db8::1]:80||"},
	{"3.2", "an empty port is no port", "GET / HTTP/1.1|Host: a:||", "GET / HTTP/1.1|Host: a||"},
	{"3.2.1", "the query goes along", "GET /a?b=c&d HTTP/1.1|Host: a||", "GET /a?b=c&d HTTP/1.1|Host: a||"},
	{"3.2.1", "an empty query is not no query", "GET /a? HTTP/1.1|Host: a||", "GET /a? HTTP/1.1|Host: a||"},
	{"3.2.2", "absolute-form is accepted", "GET http://a/b?c HTTP/1.1|Host: a||", "GET /b?c HTTP/1.1|Host: a||"},
	{"3.2.2", "and its authority wins over Host", "GET http://a:81/ HTTP/1.1|Host: b||", "GET / HTTP/1.1|Host: a:81||"},
	{"3.2.2", "which must be well-formed all the same", "GET http://a/ HTTP/1.1|Host: b@c||", "bad_host"},
	{"3.2.2", "an empty path is /", "GET http://a HTTP/1.1|Host: a||", "GET / HTTP/1.1|Host: a||"},
	{"3.2.2", "also before a query", "GET http://a?b HTTP/1.1|Host: a||", "GET /?b HTTP/1.1|Host: a||"},
	{"3.2.2", "the scheme has no case", "GET HTTPS://a/ HTTP/1.1|Host: a||", "GET / HTTP/1.1|Host: a||"},
	{"3.2.2", "other schemes are not served", "GET ftp://a/ HTTP/1.1|Host: a||", "bad_target"},
	{"3.2.2", "user information is refused (RFC 9110 4.2.4)", "GET http://u@a/ HTTP/1.1|Host: a||", "bad_target"},
	{"3.2.2", "an empty authority is refused", "GET http:///a HTTP/1.1|Host: a||", "bad_target"},
	{"3.2.3", "authority-form belongs to CONNECT, which is not offered", "CONNECT a:443 HTTP/1.1|Host: a||", "connect_refused"},
	{"3.2.3", "and to nothing else", "GET a:443 HTTP/1.1|Host: a||", "bad_target"},
	{"3.2.4", "asterisk-form belongs to OPTIONS", "OPTIONS * HTTP/1.1|Host: a||", "OPTIONS * HTTP/1.1|Host: a||"},
	{"3.2.4", "and to nothing else", "GET * HTTP/1.1|Host: a||", "bad_target"},
	{"3.2.4", "OPTIONS of an absolute target without a path is *", "OPTIONS http://a HTTP/1.1|Host: a||", "OPTIONS * HTTP/1.1|Host: a||"},

	{"5", "white space around a value is not part of it", "GET / HTTP/1.1|Host:\t a \t|X:y|Z:  ||", "GET / HTTP/1.1|Host: a|X: y|Z: ||"},
	{"5", "in front of it or behind it", "GET / HTTP/1.1|Host: a|X:y |Z:\ty||", "GET / HTTP/1.1|Host: a|X: y|Z: y||"},
	{"5", "a field name is a token", "GET / HTTP/1.1|Host: a|X(: y||", "bad_field_name"},
	{"5", "and not empty", "GET / HTTP/1.1|Host: a|: y||", "bad_field_name"},
	{"5", "a line without a colon is no field", "GET / HTTP/1.1|Host: a|XY||", "bad_field_name"},
	{"5", "NUL in a name is refused", "GET / HTTP/1.1|Host: a|X\x00: y||", "bad_field_name"},
	{"5", "a byte above ASCII in a name is refused", "GET / HTTP/1.1|Host: a|X\xff: y||", "bad_field_name"},
	{"5.1", "no white space stands before the colon", "GET / HTTP/1.1|Host: a|X : y||", "space_before_colon"},
	{"5.1", "not even HTAB", "GET / HTTP/1.1|Host: a|Content-Length\t: 5||", "space_before_colon"},
	{"5.2", "a folded field is refused", "GET / HTTP/1.1|Host: a|X: y| z||", "folded_field"},
	{"5.2", "folded by HTAB too", "GET / HTTP/1.1|Host: a|X: y|\tz||", "folded_field"},
	{"5.5 of 9110", "NUL in a value is refused", "GET / HTTP/1.1|Host: a|X: a\x00b||", "bad_field_value"},
	{"5.5 of 9110", "other control characters are refused", "GET / HTTP/1.1|Host: a|X: a\x0bb||", "bad_field_value"},
	{"5.5 of 9110", "DEL is refused", "GET / HTTP/1.1|Host: a|X: a\x7fb||", "bad_field_value"},
	{"5.5 of 9110", "HTAB and bytes above ASCII are fine", "GET / HTTP/1.1|Host: a|X: a\tb\xff||", "GET / HTTP/1.1|Host: a|X: a\tb\xff||"},

	{"6.1", "chunked is passed on as chunked", "POST / HTTP/1.1|Host: a|transfer-encoding:CHUNKED||", "POST / HTTP/1.1|Host: a|Transfer-Encoding: chunked||"},
	{"6.1", "an unknown coding is 501", "POST / HTTP/1.1|Host: a|Transfer-Encoding: gzip||", "unknown_transfer_coding"},
	{"6.1", "also before chunked", "POST / HTTP/1.1|Host: a|Transfer-Encoding: gzip, chunked||", "unknown_transfer_coding"},
	{"6.1", "identity is no coding any more", "POST / HTTP/1.1|Host: a|Transfer-Encoding: identity||", "unknown_transfer_coding"},
	{"6.1", "chunked is applied once", "POST / HTTP/1.1|Host: a|Transfer-Encoding: chunked, chunked||", "bad_transfer_encoding"},
	{"6.1", "in one field or in two", "POST / HTTP/1.1|Host: a|Transfer-Encoding: chunked|Transfer-Encoding: chunked||", "bad_transfer_encoding"},
	{"6.1", "and last", "POST / HTTP/1.1|Host: a|Transfer-Encoding: chunked, gzip||", "bad_transfer_encoding"},
	{"6.1", "an empty one is refused", "POST / HTTP/1.1|Host: a|Transfer-Encoding:||", "bad_transfer_encoding"},
	{"6.1", "look-alikes are refused: quotes", `POST / HTTP/1.1|Host: a|Transfer-Encoding: "chunked"||`, "unknown_transfer_coding"},
	{"6.1", "a parameter", "POST / HTTP/1.1|Host: a|Transfer-Encoding: chunked;q=1||", "unknown_transfer_coding"},
	{"6.1", "a vertical tab", "POST / HTTP/1.1|Host: a|Transfer-Encoding: \x0bchunked||", "bad_field_value"},
	{"6.1", "a prefix", "POST / HTTP/1.1|Host: a|Transfer-Encoding: xchunked||", "unknown_transfer_coding"},
	{"6.1", "HTTP/1.0 with Transfer-Encoding has faulty framing", "POST / HTTP/1.0|Host: a|Transfer-Encoding: chunked||", "coding_in_http10"},
	{"6.3", "Transfer-Encoding and Content-Length together are refused", "POST / HTTP/1.1|Host: a|Content-Length: 5|Transfer-Encoding: chunked||", "length_and_coding"},
	{"6.3", "in any order", "POST / HTTP/1.1|Host: a|Transfer-Encoding: chunked|Content-Length: 5||", "length_and_coding"},
	{"6.2", "Content-Length is passed on", "POST / HTTP/1.1|Host: a|content-length:  05||", "POST / HTTP/1.1|Host: a|Content-Length: 5||"},
	{"6.2", "zero too", "POST / HTTP/1.1|Host: a|Content-Length: 0||", "POST / HTTP/1.1|Host: a|Content-Length: 0||"},
	{"6.3", "two different ones are refused", "POST / HTTP/1.1|Host: a|Content-Length: 5|Content-Length: 6||", "duplicate_content_length"},
	{"6.3", "two equal ones are too", "POST / HTTP/1.1|Host: a|Content-Length: 5|Content-Length: 5||", "duplicate_content_length"},
	{"6.3", "so is a list", "POST / HTTP/1.1|Host: a|Content-Length: 5, 5||", "bad_content_length"},
	{"6.3", "a sign", "POST / HTTP/1.1|Host: a|Content-Length: +5||", "bad_content_length"},
	{"6.3", "a negative length", "POST / HTTP/1.1|Host: a|Content-Length: -5||", "bad_content_length"},
	{"6.3", "a hexadecimal length", "POST / HTTP/1.1|Host: a|Content-Length: 0x5||", "bad_content_length"},
	{"6.3", "an empty length", "POST / HTTP/1.1|Host: a|Content-Length:||", "bad_content_length"},
	{"6.3", "a length with something behind it", "POST / HTTP/1.1|Host: a|Content-Length: 5 5||", "bad_content_length"},
	{"6.3", "a length that overflows", "POST / HTTP/1.1|Host: a|Content-Length: 18446744073709551621||", "bad_content_length"},
	{"6.3", "without either there is no body", "POST / HTTP/1.1|Host: a||", "POST / HTTP/1.1|Host: a||"},

	{"7.4", "TE belongs to the connection", "GET / HTTP/1.1|Host: a|TE: trailers|Connection: TE||", "GET / HTTP/1.1|Host: a||"},
	{"7.1.2", "Trailer goes with the trailers, which are dropped", "POST / HTTP/1.1|Host: a|Trailer: X|Transfer-Encoding: chunked||", "POST / HTTP/1.1|Host: a|Transfer-Encoding: chunked||"},
	{"9.3", "keep-alive is between neighbours", "GET / HTTP/1.0|Host: a|Connection: keep-alive|Keep-Alive: timeout=5||", "GET / HTTP/1.1|Host: a||"},
	{"9.6", "so is close", "GET / HTTP/1.1|Host: a|Connection: close|Proxy-Connection: close||", "GET / HTTP/1.1|Host: a||"},
	{"7.6.1 of 9110", "fields named by Connection are removed", "GET / HTTP/1.1|Host: a|A: 1|Connection: b, X|B: 2|C: 3|x: 4||", "GET / HTTP/1.1|Host: a|A: 1|C: 3||"},
	{"7.6.1 of 9110", "those before it and every one of the name too", "GET / HTTP/1.1|Host: a|B: 1|b: 2|Connection: B||", "GET / HTTP/1.1|Host: a||"},
	{"7.6.1 of 9110", "Connection fields add up", "GET / HTTP/1.1|Host: a|Connection: b|Connection: c|B: 1|C: 2||", "GET / HTTP/1.1|Host: a||"},
	{"7.6.1 of 9110", "naming Host or a length does not take it away", "POST / HTTP/1.1|Host: a|Connection: host, content-length|Content-Length: 5||", "POST / HTTP/1.1|Host: a|Content-Length: 5||"},
	{"7.6.1 of 9110", "options are tokens", "GET / HTTP/1.1|Host: a|Connection: a b||", "bad_connection"},
	{"7.6.1 of 9110", "and few", "GET / HTTP/1.1|Host: a|Connection: a,b,c,d,e,f,g,h,i||", "bad_connection"},
	{"7.6.1 of 9110", "empty ones are nothing", "GET / HTTP/1.1|Host: a|Connection: ,, close ,||", "GET / HTTP/1.1|Host: a||"},
	{"7.6.2 of 9110", "Max-Forwards is counted down for OPTIONS", "OPTIONS / HTTP/1.1|Host: a|Max-Forwards: 7||", "OPTIONS / HTTP/1.1|Host: a|Max-Forwards: 6||"},
	{"7.6.2 of 9110", "and for TRACE", "TRACE / HTTP/1.1|Host: a|Max-Forwards: 1||", "TRACE / HTTP/1.1|Host: a|Max-Forwards: 0||"},
	{"7.6.2 of 9110", "and passed on with other methods", "GET / HTTP/1.1|Host: a|Max-Forwards: 7||", "GET / HTTP/1.1|Host: a|Max-Forwards: 7||"},
	{"7.6.2 of 9110", "it is a number", "OPTIONS / HTTP/1.1|Host: a|Max-Forwards: x||", "bad_max_forwards"},
	{"7.6.2 of 9110", "and one", "OPTIONS / HTTP/1.1|Host: a|Max-Forwards: 1|Max-Forwards: 2||", "bad_max_forwards"},
	{"7.8 of 9110", "Upgrade is passed on when Connection says so", "GET / HTTP/1.1|Host: a|Connection: upgrade|Upgrade: websocket||", "GET / HTTP/1.1|Host: a|Connection: Upgrade|Upgrade: websocket||"},
	{"7.8 of 9110", "and else not", "GET / HTTP/1.1|Host: a|Upgrade: websocket||", "GET / HTTP/1.1|Host: a||"},
	{"7.8 of 9110", "HTTP/1.0 cannot upgrade", "GET / HTTP/1.0|Host: a|Connection: upgrade|Upgrade: websocket||", "GET / HTTP/1.1|Host: a||"},
	{"7.8 of 9110", "a request with a body cannot either", "POST / HTTP/1.1|Host: a|Connection: upgrade|Upgrade: x|Content-Length: 5||", "POST / HTTP/1.1|Host: a|Content-Length: 5||"},
	{"7.8 of 9110", "HTTP/2 in clear text is not smuggled past the proxy", "GET / HTTP/1.1|Host: a|Connection: Upgrade, HTTP2-Settings|Upgrade: foo, H2C|HTTP2-Settings: AAMAAABk||", "GET / HTTP/1.1|Host: a||"},
	{"7.8 of 9110", "Upgrade is a list of protocols", "GET / HTTP/1.1|Host: a|Connection: upgrade|Upgrade: a b||", "bad_upgrade"},
	{"9.3.8 of 9110", "TRACE has no body", "TRACE / HTTP/1.1|Host: a|Content-Length: 1||", "trace_with_body"},
	{"10.1.1 of 9110", "100-continue is passed on", "PUT / HTTP/1.1|Host: a|Expect: 100-Continue|Content-Length: 5||", "PUT / HTTP/1.1|Host: a|Expect: 100-continue|Content-Length: 5||"},
	{"10.1.1 of 9110", "other expectations are 417", "PUT / HTTP/1.1|Host: a|Expect: 100-continue, x|Content-Length: 5||", "bad_expect"},
	{"10.1.1 of 9110", "without a body there is nothing to expect", "GET / HTTP/1.1|Host: a|Expect: 100-continue||", "GET / HTTP/1.1|Host: a||"},
	{"10.1.1 of 9110", "HTTP/1.0 cannot expect it", "PUT / HTTP/1.0|Host: a|Expect: 100-continue|Content-Length: 5||", "PUT / HTTP/1.1|Host: a|Content-Length: 5||"},
	{"11", "what a client says of where it comes from is not believed", "GET / HTTP/1.1|Host: a|X-Forwarded-For: 1.2.3.4|x-forwarded-proto: https||", "GET / HTTP/1.1|Host: a||"},
	{"11", "not even in the spelling that is the same to CGI", "GET / HTTP/1.1|Host: a|X_Forwarded_For: 1.2.3.4|X-Forwarded_Proto: https||", "GET / HTTP/1.1|Host: a||"},
	{"11", "other fields go as they are", "GET / HTTP/1.1|A: 1|Host: a|B:2|C: 3 |d: 4|D: 5||", "GET / HTTP/1.1|Host: a|A: 1|B: 2|C: 3|d: 4|D: 5||"},
}

func TestRequestsAgainstRFC9112(t *testing.T) {
	edits := without("Via")
	for _, c := range requestCases {
		var r Request
		if got := forward(&r, lines(c.in), &ToServer{Edits: edits, Host: []byte("198.18.0.9")}); got != lines(c.want) {
			t.Errorf("section %s: %s\n in   %q\n got  %q\n want %q", c.section, c.sentence, c.in, got, lines(c.want))
		}
	}
}

// Every prefix of a good request is incomplete, and every prefix of a bad one incomplete or bad: where the bytes happen to be
// cut changes nothing.
func TestCutRequestsAreIncompleteOrRefusedForTheSameReason(t *testing.T) {
	for _, c := range requestCases {
		in := lines(c.in)
		var whole, r Request
		verdict := whole.Parse([]byte(in), Limits{})
		end := whole.N
		if verdict != OK {
			end = len(in)
		}
		for n := range end {
			switch e := r.Parse([]byte(in[:n]), Limits{}); {
			case r.N != 0:
				t.Errorf("section %s: %q cut to %d bytes is complete", c.section, c.in, n)
			case e != OK && e != verdict:
				t.Errorf("section %s: %q cut to %d bytes: %v, whole: %v", c.section, c.in, n, e, verdict)
			}
		}
	}
}

// Status lines and framing of responses. What arrives, then whether it answers HEAD, then what goes on to an HTTP/1.1 client.
var responseCases = []struct {
	section, sentence string
	head              bool
	in, want          string
	body              Body
}{
	{"4", "a status line has a status and a reason", false, "HTTP/1.1 200 Fine|Content-Length: 5||", "HTTP/1.1 200 Fine|Content-Length: 5||", Length},
	{"4", "the reason may be empty", false, "HTTP/1.1 200 |Content-Length: 5||", "HTTP/1.1 200 |Content-Length: 5||", Length},
	{"4", "and the space before it forgotten", false, "HTTP/1.1 200|Content-Length: 5||", "HTTP/1.1 200 |Content-Length: 5||", Length},
	{"4", "the reason may hold bytes above ASCII", false, "HTTP/1.1 200 \xe4|Content-Length: 5||", "HTTP/1.1 200 \xe4|Content-Length: 5||", Length},
	{"4", "but no control characters", false, "HTTP/1.1 200 O\x00K|Content-Length: 5||", "bad_status_line", 0},
	{"4", "nor a bare CR", false, "HTTP/1.1 200 O\rK|Content-Length: 5||", "bad_status_line", 0},
	{"4", "a status has three digits", false, "HTTP/1.1 20 OK|Content-Length: 5||", "bad_status_line", 0},
	{"4", "and not four", false, "HTTP/1.1 2000 OK|Content-Length: 5||", "bad_status_line", 0},
	{"4", "it starts at 100", false, "HTTP/1.1 099 X|Content-Length: 5||", "bad_status_line", 0},
	{"15 of 9110", "and ends at 599", false, "HTTP/1.1 600 X|Content-Length: 5||", "bad_status_line", 0},
	{"2.3", "another protocol is refused", false, "ICY 200 OK||", "bad_status_line", 0},
	{"2.3", "another major version is refused", false, "HTTP/2.0 200 OK||", "bad_status_line", 0},
	{"2.3", "a proxy sends its own version", false, "HTTP/1.0 200 OK|Content-Length: 5||", "HTTP/1.1 200 OK|Content-Length: 5||", Length},
	{"2.2", "a bare LF is refused", false, "HTTP/1.1 200 OK\nContent-Length: 5||", "bare_lf", 0},
	{"2.2", "in fields too", false, "HTTP/1.1 200 OK|A: b\nContent-Length: 5||", "bare_lf", 0},
	{"5.1", "white space before the colon is removed", false, "HTTP/1.1 200 OK|A : b|Content-Length \t: 5||", "HTTP/1.1 200 OK|A: b|Content-Length: 5||", Length},
	{"5.2", "a folded field is refused", false, "HTTP/1.1 200 OK|A: b| c|Content-Length: 5||", "folded_field", 0},
	{"5.5 of 9110", "a control character in a value is refused", false, "HTTP/1.1 200 OK|A: b\x00|Content-Length: 5||", "bad_field_value", 0},
	{"6.3", "1: HEAD has no body, and its length is passed on", true, "HTTP/1.1 200 OK|Content-Length: 5||", "HTTP/1.1 200 OK|Content-Length: 5||", NoBody},
	{"6.3", "1: nor any coding", true, "HTTP/1.1 200 OK|Transfer-Encoding: chunked||", "HTTP/1.1 200 OK||", NoBody},
	{"6.3", "1: 204 has no body and says no length", false, "HTTP/1.1 204 No Content|Content-Length: 5||", "HTTP/1.1 204 No Content||", NoBody},
	{"6.3", "1: 304 has no body but may say one", false, "HTTP/1.1 304 Not Modified|Content-Length: 5||", "HTTP/1.1 304 Not Modified|Content-Length: 5||", NoBody},
	{"6.3", "1: 1xx has no body", false, "HTTP/1.1 103 Early Hints|Link: </a>|Content-Length: 5||", "HTTP/1.1 103 Early Hints|Link: </a>||", NoBody},
	{"6.3", "3: Transfer-Encoding wins over Content-Length", false, "HTTP/1.1 200 OK|Content-Length: 5|Transfer-Encoding: chunked||", "HTTP/1.1 200 OK|Transfer-Encoding: chunked||", Chunked},
	{"6.3", "4: other codings are not understood", false, "HTTP/1.1 200 OK|Transfer-Encoding: gzip||", "unknown_transfer_coding", 0},
	{"6.1", "HTTP/1.0 with Transfer-Encoding has faulty framing", false, "HTTP/1.0 200 OK|Transfer-Encoding: chunked||", "coding_in_http10", 0},
	{"6.3", "5: two lengths are refused", false, "HTTP/1.1 200 OK|Content-Length: 5|Content-Length: 6||", "duplicate_content_length", 0},
	{"6.3", "5: a list of lengths is refused", false, "HTTP/1.1 200 OK|Content-Length: 5, 5||", "bad_content_length", 0},
	{"6.3", "8: without either the body ends with the connection", false, "HTTP/1.0 200 OK|A: b||", "HTTP/1.1 200 OK|A: b|Connection: close||", UntilClose},
	{"7.6.1 of 9110", "fields named by Connection are removed", false, "HTTP/1.1 200 OK|Connection: a, close|A: b|B: c|Content-Length: 5||", "HTTP/1.1 200 OK|B: c|Content-Length: 5||", Length},
	{"7.8 of 9110", "101 says to what", false, "HTTP/1.1 101 Switching Protocols|Connection: upgrade|Upgrade: websocket|A: b||", "HTTP/1.1 101 Switching Protocols|A: b|Connection: Upgrade|Upgrade: websocket||", NoBody},
	{"7.8 of 9110", "and else is refused", false, "HTTP/1.1 101 Switching Protocols||", "bad_upgrade", 0},
	{"15.2 of 9110", "100 goes through", false, "HTTP/1.1 100 Continue||", "HTTP/1.1 100 Continue||", NoBody},
}

func TestResponsesAgainstRFC9112(t *testing.T) {
	for _, c := range responseCases {
		var r Response
		got := ""
		switch e := r.Parse([]byte(lines(c.in)), c.head, Limits{}); {
		case e != OK:
			got = e.String()
		case r.N != len(lines(c.in)):
			got = "incomplete"
		default:
			got = string(r.AppendHead(nil, &ToClient{Minor: 1}))
		}
		if got != lines(c.want) || r.Body != c.body {
			t.Errorf("section %s: %s\n in   %q\n got  %q, body %v\n want %q, body %v", c.section, c.sentence, c.in, got, r.Body, lines(c.want), c.body)
		}
	}
}

func TestKeepAlive(t *testing.T) { // section 9.3
	for _, c := range []struct {
		version, connection string
		want                bool
	}{
		{"1.1", "", true}, {"1.1", "close", false}, {"1.1", "keep-alive", true}, {"1.1", "keep-alive, close", false},
		{"1.1", "x, Close", false}, {"1.0", "", false}, {"1.0", "Keep-Alive", true}, {"1.0", "keep-alive, close", false},
	} {
		var r Request
		if e := r.Parse([]byte("GET / HTTP/"+c.version+"\r\nHost: a\r\nConnection: "+c.connection+"\r\n\r\n"), Limits{}); e != OK {
			t.Fatal(e)
		}
		var p Response
		if e := p.Parse([]byte("HTTP/"+c.version+" 200 OK\r\nContent-Length: 0\r\nConnection: "+c.connection+"\r\n\r\n"), false, Limits{}); e != OK {
			t.Fatal(e)
		}
		if r.KeepAlive != c.want || p.KeepAlive != c.want {
			t.Errorf("HTTP/%s, Connection: %s: request keeps alive %v, response %v; want %v", c.version, c.connection, r.KeepAlive, p.KeepAlive, c.want)
		}
	}
	var p Response
	if p.Parse([]byte("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"), false, Limits{}); p.KeepAlive {
		t.Error("a server that sends a length and a coding is trusted with another request")
	}
}

// lines turns the cases' "|" into line ends.
func lines(s string) string { return strings.ReplaceAll(s, "|", "\r\n") }

// forward returns the head that goes on, or the name of the error.
func forward(r *Request, in string, o *ToServer) string {
	switch e := r.Parse([]byte(in), Limits{}); {
	case e != OK && r.N != 0:
		return "refused, but N is set"
	case e != OK:
		return e.String()
	case r.N == 0:
		return "incomplete"
	}
	return string(r.AppendHead(nil, o))
}
