package h1

import "bytes"

// Cookie returns the value of the first cookie of that name, or nil.
func (r *Request) Cookie(name string) []byte {
	for i := range r.Fields {
		f := &r.Fields[i]
		if len(f.Name) != 6 || !equalFold(f.Name, "cookie") {
			continue
		}
		for list := f.Value; len(list) > 0; {
			pair := list
			if i := bytes.IndexByte(list, ';'); i >= 0 {
				pair, list = list[:i], list[i+1:]
			} else {
				list = nil
			}
			pair = trim(pair)
			if len(pair) > len(name) && pair[len(name)] == '=' && string(pair[:len(name)]) == name {
				return pair[len(name)+1:]
			}
		}
	}
	return nil
}

// QueryValue returns the value of the first query parameter of that name, percent-decoded and with "+" as a space, or nil when
// there is none. A name without "=" has an empty value. What must be decoded is appended to scratch[:0], which is not
// outgrown when it has room for the whole query.
func (r *Request) QueryValue(name string, scratch []byte) []byte {
	for q := r.Query; len(q) > 0; {
		pair := q
		if i := bytes.IndexByte(q, '&'); i >= 0 {
			pair, q = q[:i], q[i+1:]
		} else {
			q = nil
		}
		key, value := pair, []byte(nil)
		if i := bytes.IndexByte(pair, '='); i >= 0 {
			key, value = pair[:i], pair[i+1:]
		}
		if !decodesTo(key, name) || len(pair) == 0 {
			continue
		}
		if value == nil {
			return key[len(key):]
		}
		if bytes.IndexByte(value, '%') < 0 && bytes.IndexByte(value, '+') < 0 {
			return value
		}
		out := scratch[:0]
		for len(value) > 0 {
			c, n := decodeByte(value)
			out = append(out, c)
			value = value[n:]
		}
		return out
	}
	return nil
}

// decodesTo reports whether b, decoded, is s.
func decodesTo(b []byte, s string) bool {
	for i := 0; i < len(s); i++ {
		if len(b) == 0 {
			return false
		}
		c, n := decodeByte(b)
		if c != s[i] {
			return false
		}
		b = b[n:]
	}
	return len(b) == 0
}

// decodeByte decodes the first byte of b, which is not empty. A "%" without two digits after it stands for itself.
func decodeByte(b []byte) (c byte, n int) {
	switch {
	case b[0] == '+':
		return ' ', 1
	case b[0] == '%' && len(b) >= 3 && class[b[1]]&class[b[2]]&isHex != 0:
		return unhex(b[1])<<4 | unhex(b[2]), 3
	}
	return b[0], 1
}

// unhex returns the value of a hexadecimal digit.
func unhex(c byte) byte {
	if c <= '9' {
		return c - '0'
	}
	return c | 0x20 - 'a' + 10
}
