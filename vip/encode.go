package vip

import (
	"encoding"
	"encoding/json"
	"fmt"
	"net/netip"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// encoder writes what package encoding/json would, without making anything anew: a guard reports twice a second for months. It knows the
// kinds that reports are made of, and panics at others when it meets their type first, whatever the value. Maps come in no order, and a
// slice without elements is null, whether there is memory behind it or not. The zero encoder is ready.
type encoder struct {
	shapes map[reflect.Type]*shape
}

// shape is what is known of a type.
type shape struct {
	kind   reflect.Kind // Invalid: one that has its own way
	own    func(b []byte, v reflect.Value) []byte
	fields []shapedField // of a struct
	elem   *shape        // of a slice, a map, a pointer

	// Where a map's entry is looked at. No type contains itself, so that nobody else looks at the same time.
	key, value reflect.Value
	iter       reflect.MapIter
}

type shapedField struct {
	name      string // with quotes and a colon
	index     []int
	omitEmpty bool
	shape     *shape
}

// append adds what v points to.
func (e *encoder) append(b []byte, v any) []byte {
	p := reflect.ValueOf(v)
	return e.shape(p.Type().Elem()).append(b, p.Elem())
}

func (e *encoder) shape(t reflect.Type) *shape {
	if s := e.shapes[t]; s != nil {
		return s
	}
	if e.shapes == nil {
		e.shapes = map[reflect.Type]*shape{}
	}
	s := &shape{kind: t.Kind()}
	switch {
	case t == reflect.TypeFor[netip.Addr]():
		s.kind, s.own = reflect.Invalid, func(b []byte, v reflect.Value) []byte {
			a := v.Addr().Interface().(*netip.Addr)
			if !a.IsValid() {
				return append(b, `""`...)
			}
			return append(a.AppendTo(append(b, '"')), '"')
		}
	case t == reflect.TypeFor[time.Time]():
		s.kind, s.own = reflect.Invalid, func(b []byte, v reflect.Value) []byte {
			return append(v.Addr().Interface().(*time.Time).AppendFormat(append(b, '"'), time.RFC3339Nano), '"')
		}
	case t == reflect.TypeFor[prose]():
		s.kind, s.own = reflect.Invalid, func(b []byte, v reflect.Value) []byte {
			b = append(b, '[')
			v.Addr().Interface().(*prose).each(func(line []byte) { b = append(appendQuoted(b, line), ',') })
			return closed(b, ']')
		}
	case t.Implements(reflect.TypeFor[json.Marshaler]()) || t.Implements(reflect.TypeFor[encoding.TextMarshaler]()):
		panic(fmt.Sprintf("%v has its own way to be JSON", t))
	}
	switch s.kind {
	case reflect.Invalid, reflect.Bool, reflect.String, reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
	case reflect.Slice, reflect.Pointer:
		s.elem = e.shape(t.Elem())
	case reflect.Map:
		s.elem, s.key, s.value = e.shape(t.Elem()), reflect.New(t.Key()).Elem(), reflect.New(t.Elem()).Elem()
		if t.Key().Kind() != reflect.String {
			panic(fmt.Sprintf("%v is no object", t))
		}
	case reflect.Struct:
		s.fields = e.fields(t)
	default:
		panic(fmt.Sprintf("%v can't be encoded", t))
	}
	e.shapes[t] = s
	return s
}

// fields are those of a struct as encoding/json sees them: an embedded struct's are its own, but for those whose names it has already.
func (e *encoder) fields(t reflect.Type) (out []shapedField) {
	own := map[string]bool{}
	for i := range t.NumField() {
		if f := t.Field(i); !f.Anonymous {
			own[nameOf(f)] = true
		}
	}
	for i := range t.NumField() {
		f := t.Field(i)
		switch {
		case f.Anonymous && f.Type.Kind() == reflect.Struct:
			for _, in := range e.fields(f.Type) {
				if !own[in.name] {
					in.index = append([]int{i}, in.index...)
					out = append(out, in)
				}
			}
		case f.IsExported():
			out = append(out, shapedField{name: nameOf(f), index: f.Index, omitEmpty: strings.HasSuffix(f.Tag.Get("json"), ",omitempty"), shape: e.shape(f.Type)})
		}
	}
	return out
}

func nameOf(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	if name == "" {
		name = f.Name
	}
	return strconv.Quote(name) + ":"
}

func (s *shape) append(b []byte, v reflect.Value) []byte {
	switch s.kind {
	case reflect.Bool:
		return strconv.AppendBool(b, v.Bool())
	case reflect.String:
		return appendQuoted(b, v.String())
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return strconv.AppendInt(b, v.Int(), 10)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return strconv.AppendUint(b, v.Uint(), 10)
	case reflect.Pointer:
		if v.IsNil() {
			return append(b, "null"...)
		}
		return s.elem.append(b, v.Elem())
	case reflect.Slice:
		if v.Len() == 0 {
			return append(b, "null"...)
		}
		b = append(b, '[')
		for i := range v.Len() {
			b = append(s.elem.append(b, v.Index(i)), ',')
		}
		return closed(b, ']')
	case reflect.Map:
		return s.appendMap(b, v)
	case reflect.Struct:
		b = append(b, '{')
		for i := range s.fields {
			f := &s.fields[i]
			if in := v.FieldByIndex(f.index); !f.omitEmpty || !empty(in) {
				b = append(f.shape.append(append(b, f.name...), in), ',')
			}
		}
		return closed(b, '}')
	}
	return s.own(b, v)
}

func (s *shape) appendMap(b []byte, v reflect.Value) []byte {
	if v.IsNil() {
		return append(b, "null"...)
	}
	b = append(b, '{')
	for s.iter.Reset(v); s.iter.Next(); {
		s.key.SetIterKey(&s.iter)
		s.value.SetIterValue(&s.iter)
		b = append(appendQuoted(b, s.key.String()), ':')
		b = append(s.elem.append(b, s.value), ',')
	}
	return closed(b, '}')
}

// closed ends a list whose elements each have a comma behind them.
func closed(b []byte, end byte) []byte {
	if b[len(b)-1] == ',' {
		b[len(b)-1] = end
		return b
	}
	return append(b, end)
}

// empty is what omitempty leaves out.
func empty(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Slice, reflect.Map:
		return v.Len() == 0
	case reflect.Struct:
		return false
	}
	return v.IsZero()
}

// appendQuoted adds text as a JSON string. Bytes that are no UTF-8 stay, and the reader replaces them.
func appendQuoted[T string | []byte](b []byte, text T) []byte {
	b = append(b, '"')
	for i := range len(text) {
		switch c := text[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c < ' ':
			b = append(b, '\\', 'u', '0', '0', '0'+c>>4, "0123456789abcdef"[c&15])
		default:
			b = append(b, c)
		}
	}
	return append(b, '"')
}
