package api

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/skeinlb/skein/config"
)

// What internal/node returns from a Proposer, so that callers can tell what went wrong. Others are reported as they are.
var (
	ErrNoLeader       = errors.New("the cluster has no leader")
	ErrUnknownOutcome = errors.New("the outcome of the write is unknown")
)

// Code names a kind of error in the API. It is stable, and the command line's exit codes are made from it.
type Code string

const (
	CodeBadRequest     Code = "bad_request"     // 400
	CodeInvalidConfig  Code = "invalid_config"  // 422, with diagnostics
	CodeBadCertificate Code = "bad_certificate" // 422
	CodeNotFound       Code = "not_found"       // 404
	CodeConflict       Code = "conflict"        // 409: it is not in a state that allows this
	CodeStaleRevision  Code = "stale_revision"  // 409: somebody else applied meanwhile
	CodeDenied         Code = "denied"          // 403
	CodeNoQuorum       Code = "no_quorum"       // 503
	CodeUnknownOutcome Code = "unknown_outcome" // 504: it may or may not have happened
	CodeInternal       Code = "internal"        // 500
)

// Error is the body of every answer that is not a success.
type Error struct {
	Code        Code         `json:"code"`
	Message     string       `json:"message"`
	Hint        string       `json:"hint,omitempty"`
	Revision    uint64       `json:"revision,omitempty"` // stale_revision: the current one
	Diagnostics []Diagnostic `json:"diagnostics,omitempty"`
}

func (e *Error) Error() string { return e.Message }

// Status is the HTTP status that goes with e's code.
func (e *Error) Status() int {
	switch e.Code {
	case CodeBadRequest:
		return http.StatusBadRequest
	case CodeInvalidConfig, CodeBadCertificate:
		return http.StatusUnprocessableEntity
	case CodeNotFound:
		return http.StatusNotFound
	case CodeConflict, CodeStaleRevision:
		return http.StatusConflict
	case CodeDenied:
		return http.StatusForbidden
	case CodeNoQuorum:
		return http.StatusServiceUnavailable
	case CodeUnknownOutcome:
		return http.StatusGatewayTimeout
	}
	return http.StatusInternalServerError
}

// Diagnostic is one mistake in a configuration, with its place.
type Diagnostic struct {
	Severity string `json:"severity"` // "error" or "warning"
	File     string `json:"file"`
	Line     int    `json:"line"`
	Column   int    `json:"column"`
	Width    int    `json:"width,omitempty"`
	Summary  string `json:"summary"`
	Hint     string `json:"hint,omitempty"`
	Source   string `json:"source,omitempty"` // the line
}

// Diagnostics are the findings of package config as documents.
func Diagnostics(found config.Diagnostics) []Diagnostic {
	out := []Diagnostic{}
	for _, d := range found {
		out = append(out, Diagnostic{
			Severity: d.Severity.String(), File: d.Pos.File, Line: d.Pos.Line, Column: d.Pos.Column,
			Width: d.Width, Summary: d.Summary, Hint: d.Hint, Source: d.Line,
		})
	}
	return out
}

// Changes is the difference of two configurations as documents. Either may be nil.
func Changes(old, new *config.Config) []Change {
	out := []Change{}
	for _, c := range config.Diff(old, new) {
		out = append(out, Change{Kind: c.Kind.String(), Object: c.Object, Detail: c.Detail})
	}
	return out
}

func errorf(code Code, hint, format string, args ...any) *Error {
	return &Error{Code: code, Hint: hint, Message: fmt.Sprintf(format, args...)}
}
