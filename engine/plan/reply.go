package plan

import (
	"fmt"
	"html"

	"github.com/skeinlb/skein/config"
	"github.com/skeinlb/skein/engine/h1"
)

// Reply is an answer that needs no server. Immutable.
type Reply struct {
	Status int
	Body   []byte

	head  []byte // without Date, Connection and the empty line
	dated bool   // an edit has set the Date
}

// newReply renders a reply with the response edits applied. fields are complete lines.
func newReply(status int, fields, contentType, body string, edits *h1.Edits) (*Reply, error) {
	text := fmt.Sprintf("HTTP/1.1 %d %s\r\n%s", status, h1.StatusText(status), fields)
	if bodyless := status == 204 || status == 304; bodyless {
		body = ""
	} else {
		if body != "" && contentType != "" {
			text += "Content-Type: " + contentType + "\r\n"
		}
		text += fmt.Sprintf("Content-Length: %d\r\n", len(body))
	}
	text += "\r\n"
	var r h1.Response
	if e := r.Parse([]byte(text), false, h1.Limits{}); e != h1.OK || r.N != len(text) {
		return nil, fmt.Errorf("render the reply: %s", e.Meaning())
	}
	head := r.AppendHead(nil, &h1.ToClient{Edits: edits, Minor: 1})
	if e := r.Parse(head, false, h1.Limits{}); e != h1.OK || r.N != len(head) {
		return nil, fmt.Errorf("render the reply: %s", e.Meaning())
	}
	return &Reply{Status: status, Body: []byte(body), head: head[:len(head)-2], dated: r.Header("date") != nil}, nil
}

// Append appends the whole reply to a request: head (its method was HEAD) and minor version say how it was asked, close that the
// connection ends with it. date is the value of a Date field, nil: none.
func (r *Reply) Append(dst []byte, head bool, minor uint8, close bool, date []byte) []byte {
	dst = append(dst, r.head...)
	if date != nil && !r.dated {
		dst = append(dst, "Date: "...)
		dst = append(dst, date...)
		dst = append(dst, "\r\n"...)
	}
	switch {
	case close:
		dst = append(dst, "Connection: close\r\n"...)
	case minor == 0:
		dst = append(dst, "Connection: keep-alive\r\n"...)
	}
	dst = append(dst, "\r\n"...)
	if !head {
		dst = append(dst, r.Body...)
	}
	return dst
}

func newRedirect(c *config.Redirect, edits *h1.Edits) (*Reply, error) {
	link := html.EscapeString(c.Location)
	body := fmt.Sprintf("<!doctype html><title>%s</title><a href=\"%s\">%s</a>\n", h1.StatusText(c.Status), link, link)
	return newReply(c.Status, "Location: "+c.Location+"\r\n", "text/html; charset=utf-8", body, edits)
}

func newRespond(c *config.Respond, edits *h1.Edits) (*Reply, error) {
	contentType := c.ContentType
	if contentType == "" {
		contentType = "text/plain; charset=utf-8"
	}
	return newReply(c.Status, "", contentType, c.Body, edits)
}
