package node

import "time"

// Session ticket keys turn so that one that was stolen opens few sessions, and stay a while so that clients that come back can resume.
const (
	ticketLife = 8 * time.Hour
	ticketKeep = 3
)
