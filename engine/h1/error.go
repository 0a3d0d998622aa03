package h1

// Error is why a message is refused. The zero Error is none. It is counted and mapped to a status, never formatted.
type Error uint8

const (
	OK Error = iota
	BadRequestLine
	BadMethod
	BadTarget
	TargetTooLong
	BadVersion
	UnsupportedVersion
	ConnectRefused
	HeadTooLarge
	TooManyFields
	BareLF
	BareCR
	FoldedField
	SpaceBeforeColon
	BadFieldName
	BadFieldValue
	MissingHost
	DuplicateHost
	BadHost
	BadContentLength
	DuplicateContentLength
	BadTransferEncoding
	UnknownTransferCoding
	LengthAndCoding
	CodingInHTTP10
	BadConnection
	BadUpgrade
	BadExpect
	BadMaxForwards
	TraceWithBody
	BadStatusLine
	BadChunkSize
	BadChunkExtension
	BadChunkEnd
	BadTrailer
	ChunkOverhead

	NumErrors // the length of an array that counts by Error
)

var errorNames = [NumErrors]string{
	OK:                     "ok",
	BadRequestLine:         "bad_request_line",
	BadMethod:              "bad_method",
	BadTarget:              "bad_target",
	TargetTooLong:          "target_too_long",
	BadVersion:             "bad_version",
	UnsupportedVersion:     "unsupported_version",
	ConnectRefused:         "connect_refused",
	HeadTooLarge:           "head_too_large",
	TooManyFields:          "too_many_fields",
	BareLF:                 "bare_lf",
	BareCR:                 "bare_cr",
	FoldedField:            "folded_field",
	SpaceBeforeColon:       "space_before_colon",
	BadFieldName:           "bad_field_name",
	BadFieldValue:          "bad_field_value",
	MissingHost:            "missing_host",
	DuplicateHost:          "duplicate_host",
	BadHost:                "bad_host",
	BadContentLength:       "bad_content_length",
	DuplicateContentLength: "duplicate_content_length",
	BadTransferEncoding:    "bad_transfer_encoding",
	UnknownTransferCoding:  "unknown_transfer_coding",
	LengthAndCoding:        "length_and_coding",
	CodingInHTTP10:         "coding_in_http10",
	BadConnection:          "bad_connection",
	BadUpgrade:             "bad_upgrade",
	BadExpect:              "bad_expect",
	BadMaxForwards:         "bad_max_forwards",
	TraceWithBody:          "trace_with_body",
	BadStatusLine:          "bad_status_line",
	BadChunkSize:           "bad_chunk_size",
	BadChunkExtension:      "bad_chunk_extension",
	BadChunkEnd:            "bad_chunk_end",
	BadTrailer:             "bad_trailer",
	ChunkOverhead:          "chunk_overhead",
}

// String returns e's name, as counters carry it.
func (e Error) String() string {
	if e < NumErrors {
		return errorNames[e]
	}
	return "unknown"
}

// Status is what a client is answered whose request was refused with e. (To a refused response the answer is always 502.)
func (e Error) Status() int {
	switch e {
	case OK:
		return 200
	case TargetTooLong:
		return 414
	case BadExpect:
		return 417
	case HeadTooLarge, TooManyFields:
		return 431
	case ConnectRefused, UnknownTransferCoding:
		return 501
	case BadStatusLine:
		return 502
	case UnsupportedVersion:
		return 505
	}
	return 400
}

// Meaning is e in words for whoever sent the message.
func (e Error) Meaning() string {
	switch e {
	case OK:
		return ""
	case BadRequestLine:
		return "the first line is not METHOD SP TARGET SP HTTP/1.1"
	case BadMethod:
		return "the method is not a token"
	case BadTarget:
		return "the request target is malformed or does not suit the method"
	case TargetTooLong:
		return "the request target is too long"
	case BadVersion:
		return "the protocol version is malformed"
	case UnsupportedVersion:
		return "only HTTP/1.0 and HTTP/1.1 are spoken here"
	case ConnectRefused:
		return "CONNECT is not offered here"
	case HeadTooLarge:
		return "the head is too large"
	case TooManyFields:
		return "there are too many header fields"
	case BareLF:
		return "a line ends with LF alone instead of CR LF"
	case BareCR:
		return "a CR stands without its LF"
	case FoldedField:
		return "a header field is folded over several lines"
	case SpaceBeforeColon:
		return "there is white space between a field name and its colon"
	case BadFieldName:
		return "a field name is empty or not a token"
	case BadFieldValue:
		return "a field value contains a control character"
	case MissingHost:
		return "there is no Host field"
	case DuplicateHost:
		return "there is more than one Host field"
	case BadHost:
		return "the Host is not a name or address with an optional port"
	case BadContentLength:
		return "Content-Length is not a plain number"
	case DuplicateContentLength:
		return "there is more than one Content-Length"
	case BadTransferEncoding:
		return "Transfer-Encoding is malformed or stands twice"
	case UnknownTransferCoding:
		return "the only transfer coding understood here is chunked"
	case LengthAndCoding:
		return "Content-Length and Transfer-Encoding exclude each other"
	case CodingInHTTP10:
		return "HTTP/1.0 has no Transfer-Encoding"
	case BadConnection:
		return "Connection is not a short list of tokens"
	case BadUpgrade:
		return "Upgrade is not a list of protocols"
	case BadExpect:
		return "the only expectation understood here is 100-continue"
	case BadMaxForwards:
		return "Max-Forwards is not a number"
	case TraceWithBody:
		return "TRACE must not have a body"
	case BadStatusLine:
		return "the first line is not HTTP/1.1 SP STATUS SP REASON"
	case BadChunkSize:
		return "a chunk size is not a hexadecimal number of reasonable length"
	case BadChunkExtension:
		return "a chunk extension is malformed"
	case BadChunkEnd:
		return "chunk data does not end where its size says"
	case BadTrailer:
		return "a trailer field is malformed"
	case ChunkOverhead:
		return "chunk extensions or trailers are too large"
	}
	return "unknown"
}
