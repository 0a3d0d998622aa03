package conform

import "strings"

var hops = []Case{
	{Level: Must, Section: "9110 7.6.1", Name: "a field named by Connection is removed", Send: "GET /a HTTP/1.1|Host: a|Connection: X-Hop|X-Hop: y|X-Stay: z||", Want: "200", Sees: "!X-Hop|X-Stay: z"},
	{Level: Must, Section: "9110 7.6.1", Name: "also one that stands before it, in any case", Send: "GET /a HTTP/1.1|Host: a|x-hop: y|Connection: close, X-HOP||", Want: "200 close", Sees: "!X-Hop"},
	{Level: Must, Section: "9110 7.6.1", Name: "and every one of the name", Send: "GET /a HTTP/1.1|Host: a|X-Hop: 1|Connection: x-hop|X-Hop: 2||", Want: "200", Sees: "!X-Hop"},
	{Level: Must, Section: "9110 7.6.1", Name: "by any of several Connection fields", Send: "GET /a HTTP/1.1|Host: a|Connection: X-One|Connection: keep-alive,,X-Two|X-One: 1|X-Two: 2||", Want: "200", Sees: "!X-One|!X-Two"},
	{Level: Must, Section: "9110 7.6.1", Name: "the options themselves are not passed on", Send: "GET /a HTTP/1.1|Host: a|Connection: X-Hop, foo||", Want: "200", Sees: "!Connection: X-Hop|!Connection: foo"},
	{Level: Must, Section: "9110 10.1.4", Name: "TE goes no further when it is named", Send: "GET /a HTTP/1.1|Host: a|TE: trailers|Connection: TE||", Want: "200", Sees: "!TE"},
	{Level: Should, Section: "9110 7.6.1", Name: "nor when it is not", Send: "GET /a HTTP/1.1|Host: a|TE: trailers||", Want: "200", Sees: "!TE"},
	{Level: Should, Section: "9110 7.6.1", Name: "nor does Keep-Alive", Send: "GET /a HTTP/1.1|Host: a|Keep-Alive: timeout=5||", Want: "200", Sees: "!Keep-Alive"},
	{Level: Should, Section: "9110 7.6.1", Name: "nor Proxy-Connection", Send: "GET /a HTTP/1.1|Host: a|Proxy-Connection: keep-alive||", Want: "200", Sees: "!Proxy-Connection"},
	{Level: Should, Section: "9110 7.6.1", Name: "nor an Upgrade that is not named", Send: "GET /a HTTP/1.1|Host: a|Upgrade: websocket||", Want: "200", Sees: "!Upgrade"},
	{Level: Must, Section: "9110 7.6.1", Name: "Host is end-to-end, whatever Connection says", Send: "GET /a HTTP/1.1|Host: a|Connection: Host||", Want: "200 or 400", Sees: "Host: a"},
	{Level: Must, Section: "11.2", Name: "a length is not taken away by Connection", Send: "POST /a HTTP/1.1|Host: a|Connection: Content-Length|Content-Length: 5||hello", Want: "200 or 400", Sees: ">hello"},
	{Level: Must, Section: "11.2", Name: "nor a coding", Send: "POST /a HTTP/1.1|Host: a|Connection: Transfer-Encoding|Transfer-Encoding: chunked||5|hello|0||", Want: "200 or 400", Sees: ">hello"},
	{Level: Must, Section: "9110 7.6.1", Name: "nor what the proxy itself says of the client", Send: "GET /a HTTP/1.1|Host: a|Connection: X-Forwarded-For||", Want: "200 or 400", Sees: "X-Forwarded-For:"},
	{Level: Must, Section: "9.6", Name: "a client's close is not the server's", Send: "GET /a HTTP/1.1|Host: a|Connection: close||", Want: "200 close"},
	{Level: Legal, Section: "9110 7.6.1", Name: "empty options are nothing", Send: "GET /a HTTP/1.1|Host: a|Connection: , keep-alive ,,||", Want: "200"},
}

var forwards = []Case{
	{Level: Must, Section: "9110 7.6.3", Name: "a request gets a Via", Send: "GET /a HTTP/1.1|Host: a||", Want: "200", Sees: "~Via: 1.1 "},
	{Level: Must, Section: "9110 7.6.3", Name: "with the version that it came in", Send: "GET /a HTTP/1.0|Host: a||", Want: "200 close", Sees: "~Via: 1.0 "},
	{Level: Must, Section: "9110 7.6.3", Name: "behind those of earlier proxies", Send: "GET /a HTTP/1.1|Host: a|Via: 1.0 fred||", Want: "200", Sees: "~Via: 1.0 fred"},
	{Level: Must, Section: "9110 7.6.2", Name: "Max-Forwards of OPTIONS is counted down", Send: "OPTIONS /a HTTP/1.1|Host: a|Max-Forwards: 7||", Want: "200", Sees: "Max-Forwards: 6"},
	{Level: Must, Section: "9110 7.6.2", Name: "and of TRACE", Send: "TRACE /a HTTP/1.1|Host: a|Max-Forwards: 7||", Want: "200 or 405 or 501", Sees: "Max-Forwards: 6"},
	{Level: Must, Section: "9110 7.6.2", Name: "at 0, OPTIONS goes no further", Own: true, Send: "OPTIONS /a HTTP/1.1|Host: a|Max-Forwards: 0||", Want: "2xx or 4xx or 501"},
	{Level: Must, Section: "9110 7.6.2", Name: "nor does TRACE", Own: true, Send: "TRACE /a HTTP/1.1|Host: a|Max-Forwards: 0||", Want: "2xx or 4xx or 501"},
	{Level: Legal, Section: "9110 7.6.2", Name: "of GET it is passed on or ignored", Send: "GET /a HTTP/1.1|Host: a|Max-Forwards: 0||", Want: "200"},
	{Level: Must, Section: "9110 9.3.8", Name: "TRACE with a body is refused or its body is no request", Send: "TRACE /a HTTP/1.1|Host: a|Content-Length: 35||GET /smuggled HTTP/1.1|Host: a||", Want: "200 or refused"},
}

var expects = []Case{
	{Level: Legal, Section: "9110 10.1.1", Name: "who waits for 100 gets it and sends the body", Send: "PUT /a HTTP/1.1|Host: a|Expect: 100-continue|Content-Length: 5||", Then: "hello", Want: "200", Sees: ">hello", Gets: "1xxHTTP/1.1 100 Continue"},
	{Level: Legal, Section: "9110 10.1.1", Name: "in any spelling", Send: "PUT /a HTTP/1.1|Host: a|EXPECT:\t100-Continue |Content-Length: 5||", Then: "hello", Want: "200", Sees: ">hello"},
	{Level: Legal, Section: "9110 10.1.1", Name: "with chunks too", Send: "PUT /a HTTP/1.1|Host: a|Expect: 100-continue|Transfer-Encoding: chunked||", Then: "5|hello|0||", Want: "200", Sees: ">hello"},
	{Level: Legal, Section: "9110 10.1.1", Name: "who does not wait is served all the same", Send: "PUT /a HTTP/1.1|Host: a|Expect: 100-continue|Content-Length: 5||hello", Want: "200", Sees: ">hello"},
	{Level: Must, Section: "9110 10.1.1", Name: "in HTTP/1.0 there is no such thing", Quiet: true, Send: "PUT /a HTTP/1.0|Host: a|Expect: 100-continue|Content-Length: 5||hello", Want: "200 close", Sees: ">hello"},
	{Level: Must, Section: "9110 10.1.1", Name: "without a body there is nothing to wait with", Send: "GET /a HTTP/1.1|Host: a|Expect: 100-continue||", Want: "200 or 4xx"},
	{Level: Must, Section: "9110 10.1.1", Name: "another expectation is 417 or ignored", Send: "PUT /a HTTP/1.1|Host: a|Expect: 200-ok|Content-Length: 5||hello", Want: "417 or 200"},
	{Level: Must, Section: "11.2", Name: "a disguised expectation desynchronizes nobody", Send: "PUT /a HTTP/1.1|Host: a|Expect: y 100-continue|Content-Length: 35||GET /smuggled HTTP/1.1|Host: a||", Want: "4xx or 200"},
	{Level: Must, Section: "11.2", Name: "nor a repeated one", Send: "PUT /a HTTP/1.1|Host: a|Expect: 100-continue|Expect: 100-continue|Content-Length: 35||GET /smuggled HTTP/1.1|Host: a||", Want: "4xx or 200"},
	{Level: Must, Section: "11.2", Name: "nor one with GET", Send: "GET /a HTTP/1.1|Host: a|Expect: 100-continue|Content-Length: 35||GET /smuggled HTTP/1.1|Host: a||", Want: "4xx or 200"},
	{Level: Legal, Section: "9110 10.1.1", Name: "a server that refuses instead is heard", Early: true, Closes: true, Send: "PUT /a HTTP/1.1|Host: a|Expect: 100-continue|Content-Length: 5||", Then: "hello",
		Reply: "HTTP/1.1 413 Content Too Large|Content-Length: 0|Connection: close||", Want: "413"},
	{Level: Must, Section: "11.2", Name: "0.CL: after an early answer, the body is no request", Early: true, Send: "PUT /a HTTP/1.1|Host: a|Expect: 100-continue|Content-Length: 35||GET /smuggled HTTP/1.1|Host: a||",
		Reply: "HTTP/1.1 200 OK|Content-Length: 2||ok", Want: "200"},
	{Level: Must, Section: "11.2", Name: "0.CL: nor is the next request, when it never comes", Early: true, Send: "PUT /a HTTP/1.1|Host: a|Expect: 100-continue|Content-Length: 35||",
		Reply: "HTTP/1.1 200 OK|Content-Length: 2||ok", Want: "200 or silence"},
}

var pipelines = []Case{
	{Level: Legal, Section: "9.3.2", Name: "two requests at once get two answers in their order", Send: "GET /1 HTTP/1.1|Host: a||GET /2 HTTP/1.1|Host: a||", Want: "200 200", Sees: "GET /1 HTTP/1.1||GET /2 HTTP/1.1"},
	{Level: Legal, Section: "9.3.2", Name: "and twenty", Send: strings.Repeat("GET /a HTTP/1.1|Host: a||", 20), Want: strings.TrimSpace(strings.Repeat("200 ", 20))},
	{Level: Legal, Section: "9.3.2", Name: "a body between them is a body", Send: "POST /1 HTTP/1.1|Host: a|Content-Length: 5||helloGET /2 HTTP/1.1|Host: a||", Want: "200 200", Sees: "POST /1 HTTP/1.1|>hello||GET /2 HTTP/1.1"},
	{Level: Legal, Section: "9.3.2", Name: "so are chunks", Send: "POST /1 HTTP/1.1|Host: a|Transfer-Encoding: chunked||5|hello|0||GET /2 HTTP/1.1|Host: a||", Want: "200 200", Sees: ">hello||GET /2 HTTP/1.1"},
	{Level: Legal, Section: "9.3.2", Name: "two requests byte by byte", Slow: true, Send: "GET /1 HTTP/1.1|Host: a||GET /2 HTTP/1.1|Host: b||", Want: "200 200", Sees: "Host: a||Host: b"},
	{Level: Must, Section: "9.3.2", Name: "a bad request behind a good one is the one that is refused", Send: "GET /1 HTTP/1.1|Host: a||GET /2 HTTP/1.1|Host: a|Content-Length: x||", Want: "200 400", Sees: "GET /1 HTTP/1.1"},
	{Level: Must, Section: "11.2", Name: "a good request behind a bad one is not served", Send: "GET /1 HTTP/1.1|Host: a|Content-Length: x||GET /2 HTTP/1.1|Host: a||", Want: "400 close"},
	{Level: Must, Section: "9.6", Name: "what follows a close is not served", Send: "GET /1 HTTP/1.1|Host: a|Connection: close||GET /2 HTTP/1.1|Host: a||", Want: "200 close", Sees: "GET /1 HTTP/1.1"},
	{Level: Must, Section: "9.3", Name: "what follows HTTP/1.0 is not served either", Send: "GET /1 HTTP/1.0|Host: a||GET /2 HTTP/1.0|Host: a||", Want: "200 close", Sees: "GET /1 HTTP/1.1"},
	{Level: Legal, Section: "9.3", Name: "HTTP/1.0 may keep its connection", Send: "GET /1 HTTP/1.0|Host: a|Connection: keep-alive||", Want: "200", Gets: "!Connection: close"},
	{Level: Should, Section: "9.3", Name: "and is told so", Send: "GET /1 HTTP/1.0|Host: a|Connection: keep-alive||", Want: "200", Gets: "Connection: keep-alive"},
	{Level: Should, Section: "2.2", Name: "a line end too many behind a body is forgiven", Send: "POST /1 HTTP/1.1|Host: a|Content-Length: 5||hello|GET /2 HTTP/1.1|Host: a||", Want: "200 200"},
	{Level: Must, Section: "8", Name: "a head that is cut off is no request", Ends: true, Send: "GET /1 HTTP/1.1|Host: a|", Want: "refused"},
	{Level: Must, Section: "8", Name: "a request line that is cut off is none", Ends: true, Send: "GET /1 HT", Want: "refused"},
	{Level: Should, Section: "9.6", Name: "who closes his direction still gets his answer", Ends: true, Send: "GET /1 HTTP/1.1|Host: a||", Want: "200"},
	{Level: Should, Section: "9.6", Name: "a refusal is not lost in the reset of what was sent behind it", Send: "POST /1 HTTP/1.1|Host: a|Content-Length: x||" + strings.Repeat("x", 300000), Want: "400 close"},
	{Level: Should, Section: "9110 6.6.1", Name: "a refusal has a Date", Send: "GET /a HTTP/1.1|Host: a|Content-Length: x||", Want: "400 close", Own: true, Gets: "Date:"},
	{Level: Should, Section: "9.6", Name: "a refusal says that the connection closes", Send: "GET /a HTTP/1.1|Host: a|Content-Length: x||", Want: "400 close", Own: true, Gets: "Connection: close"},
}

const webSocket = "GET /a HTTP/1.1|Host: a|Connection: Upgrade|Upgrade: websocket|Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==|Sec-WebSocket-Version: 13||"
const switching = "HTTP/1.1 101 Switching Protocols|Connection: upgrade|Upgrade: websocket|Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=||"

var upgrades = []Case{
	{Level: Legal, Section: "9110 7.8", Name: "a WebSocket is opened and speaks", Send: webSocket, Then: "ping", Reply: switching, Want: "101", Sees: "Upgrade: websocket|Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="},
	{Level: Must, Section: "9110 7.8", Name: "the client learns to what it switched", Send: webSocket, Then: "ping", Reply: switching, Want: "101", Gets: "Upgrade: websocket|Connection:"},
	{Level: Legal, Section: "9110 7.8", Name: "a request in the new protocol is no business of the proxy", Send: webSocket, Then: "GET /b HTTP/9|||", Reply: switching, Want: "101"},
	{Level: Legal, Section: "9110 7.8", Name: "a server may decline", Send: webSocket, Want: "200", Gets: ">GET /a"},
	{Level: Must, Section: "9110 7.8", Name: "then the next request is a request", Send: webSocket + "GET /b HTTP/1.1|Host: a||", Want: "200 200 or 200 close", Sees: "GET /a HTTP/1.1||GET /b HTTP/1.1"},
	{Level: Must, Section: "9110 7.8", Name: "and no tunnel, though the answer says upgrade", Send: webSocket + "GET /b HTTP/1.1|Host: a|Content-Length: x||", Want: "200 400 or 200 close"},
	{Level: Must, Section: "9110 7.8", Name: "HTTP/1.0 does not upgrade", Send: "GET /a HTTP/1.0|Host: a|Connection: upgrade|Upgrade: websocket||", Want: "200 close or 400", Sees: "!Upgrade"},
	{Level: Must, Section: "9110 15.2.2", Name: "101 that nobody asked for is refused", Send: "GET /a HTTP/1.1|Host: a||", Reply: switching, Want: "refused"},
	{Level: Must, Section: "9110 7.8", Name: "101 that does not say to what is refused", Send: webSocket, Reply: "HTTP/1.1 101 Switching Protocols||", Want: "refused"},
	{Level: Should, Section: "9113 3.2", Name: "HTTP/2 in clear text is not smuggled past the proxy", Send: "GET /a HTTP/1.1|Host: a|Connection: Upgrade, HTTP2-Settings|Upgrade: h2c|HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA||", Want: "200", Sees: "!Upgrade"},
	{Level: Must, Section: "9110 7.8", Name: "an upgrade with a body keeps its framing", Send: "POST /a HTTP/1.1|Host: a|Connection: upgrade|Upgrade: websocket|Content-Length: 5||helloGET /b HTTP/1.1|Host: a||", Want: "200 200 or 200 close or 4xx", Sees: ">hello||GET /b HTTP/1.1"},
}
