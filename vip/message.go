package vip

// message is a heartbeat. The arrays are bounded and belong to the message, so that one message can be filled over and over.
type message struct {
	format   byte    // on the wire
	reads    Formats // of the sender
	from, to nodeID
	boot     uint64 // the sender's life; chosen at random at its start
	seq      uint64 // grows with every message to this receiver

	// What the sender last heard from the receiver. A grant below answers exactly this one.
	echoBoot  uint64
	echoSeq   uint64
	echoDelay int64 // between hearing it and sending this
	links     [MaxLinks]linkEcho
	nlinks    int

	interval, promise int64 // the sender's profile; promise is also its detection time
	lateness          int64
	profile           uint8
	flags             msgFlags
	mac               [6]byte
	votersIndex       uint64
	applied           uint64

	views    [MaxPeers + 1]view
	nviews   int
	entries  [MaxVIPs]entry
	nentries int
}

type msgFlags uint16

const (
	flagAnswer   msgFlags = 1 << iota // in answer to a claim; wants no answer itself
	flagAgent                         // the sender's agent lives
	flagOrphan                        // it had an agent in this life and lost it
	flagFit                           // it may hold
	flagResigned                      // it lost a lease and holds nothing
	flagWitness
	flagSilent // too young to grant
	flagRT

	flagsKnown = flagRT<<1 - 1
)

// linkEcho is what the sender last heard from the receiver over one link: the end of its seq, and how long ago.
type linkEcho struct {
	seq   uint32
	delay int64
}

// view is what the sender thinks of a third node.
type view struct {
	node    nodeID
	suspect bool
}

// entry is what the sender says of one VIP.
type entry struct {
	vip   vipID
	epoch Epoch  // the newest placement that the sender knows of
	node  nodeID // where it places the VIP
	flags entryFlags
	mac   [6]byte // under which the sender holds it, or would
}

// entryFlags are all taken: what comes next belongs into the tail (format.go).
type entryFlags uint8

const (
	entryWant     entryFlags = 1 << iota // the sender asks to be granted this epoch
	entryHeld                            // it has the addresses on its link
	entryReleased                        // it has them not, and gives back every promise made to it
	entryGranted                         // the sender has promised this epoch to the receiver, who asked in echoSeq
	entryPlanned                         // the placement is a planned move: who held it before goes on with what it has
	entryParked                          // the sender has moved it away and serves what it had established
	entryUnable                          // it cannot hold it: its interface is missing or down, or the kernel does not take the address
	entryActive                          // it is the active router of the VIP's VRRP group, or was and passes that on
)
