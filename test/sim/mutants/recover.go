package main

// The rules of a recovery without the majority (docs/decisions/0010-recover.md). Each is found by a test, in the first of these packages that
// has one: the pure state first, whole clusters last.
const recoverTests = "Transcripts|Recover|Survivor|LeftBehind|Notice|Former|GivesWay"

var (
	inState   = []string{"./state", "./cluster"}
	inCluster = []string{"./cluster", "./test/sim"}
	inGuard   = []string{"./vip", "./test/sim"}
)

var recoverMutants = []*mutant{
	// What becomes of the state.
	{
		Name: "recover: the generation is not raised", file: "state/recover.go", in: inState, run: recoverTests,
		old: "max(v.Cluster.Generation, c.Above) + step", new: "max(v.Cluster.Generation, c.Above) + 0*step",
	},
	{
		Name: "recover: a pair's generation is raised by one, which its lost node may have reached", file: "state/recover.go", in: inState, run: recoverTests,
		old: "step = maxTaken", new: "step = 1",
	},
	{
		Name: "recover: the generation that is on the disk does not count", file: "state/recover.go", in: inState, run: recoverTests,
		old: "max(v.Cluster.Generation, c.Above)", new: "max(v.Cluster.Generation, 0*c.Above)",
	},
	{
		Name: "recover: placements stay", file: "state/recover.go", in: inState, run: recoverTests,
		old: "v.Placements = map[string]Placement{}", new: "_ = 0",
	},
	{
		Name: "recover: the keys stay", file: "state/recover.go", in: inState, run: recoverTests,
		old: "v.Keys = Keys{Gossip: [][]byte{c.Gossip}, Heartbeat: [][]byte{c.Heartbeat}}", new: "_ = 0",
	},
	{
		Name: "recover: the lost nodes' certificates are taken", file: "state/recover.go", in: inState, run: recoverTests,
		old: "removed[f] = n.Name", new: "_ = f",
	},
	{
		Name: "recover: nobody remembers whom to tell", file: "state/recover.go", in: inState, run: recoverTests,
		old: "former = append(former, Former{", new: "_ = append(former, Former{",
	},
	{
		Name: "recover: who joins anew is still told that it was left behind", file: "state/recover.go", in: inState, run: recoverTests,
		old: "return f.Name == n.Name || f.Advertise == n.Advertise", new: "return false",
	},

	// When and how a survivor may.
	{
		Name: "recover: a node recovers the cluster without itself", file: "cluster/recover.go", in: inCluster, run: recoverTests,
		old: "if !slices.Contains(keep, r.Name) {", new: "if false {",
	},
	{
		Name: "recover: while the majority lives", file: "cluster/recover.go", in: inCluster, run: recoverTests,
		old: "case alive >= needed && len(against) > 0:", new: "case alive < 0:",
	},
	{
		Name: "recover: on the survivor that knows less", file: "cluster/recover.go", in: inCluster, run: recoverTests,
		old: "p.Newer, p.Ahead = end.newer(r.last),", new: "p.Newer, p.Ahead = false,",
	},
	{
		Name: "recover: beside a cluster that was recovered already", file: "cluster/recover.go", in: inCluster, run: recoverTests,
		old: "case p.Ahead:", new: "case p.Ahead && p.Addr.IsValid() && false:",
	},
	{
		Name: "recover: leaving behind a node that answers and was not named", file: "cluster/recover.go", in: inCluster, run: recoverTests,
		old: "case len(stray) > 0:", new: "case len(stray) > 99:",
	},
	{
		Name: "recover: what is not known to be agreed on is dropped", file: "cluster/recover.go", in: inCluster, run: recoverTests,
		old: "i <= last; i++ {", new: "i <= min(last, r.Known); i++ {",
	},
	{
		Name: "recover: the term is one that was seen before", file: "cluster/recover.go", in: inCluster, run: recoverTests,
		old: "r.term = max(term, r.last.Term) + 1", new: "r.term = 0*max(term, r.last.Term) + 1",
	},
	{
		Name: "recover: a node that was left behind stays in the log", file: "cluster/superseded.go", in: inCluster, run: recoverTests,
		old: "c.raft.Shutdown() // Run waits for it", new: "",
	},

	// What the guards say and do.
	{
		Name: "recover: no notice without being asked", file: "vip/notice.go", in: inGuard, run: recoverTests,
		old: "if len(f.all) == 0 || now < f.next {", new: "if len(f.all) >= 0 {",
	},
	{
		Name: "recover: a former node's heartbeat is not answered", file: "vip/notice.go", in: inGuard, run: recoverTests,
		old: "p.again = now + noticeAnswer\n\t\t\tf.tell(p, buf, tell)", new: "p.again = now + noticeAnswer",
	},
	{
		Name: "recover: a notice counts without its signature", file: "vip/notice.go", in: inGuard, run: recoverTests,
		old: "k := c.signer(b)\n\tif k < 0 {", new: "k := 0\n\tif k < 0 {",
	},
	{
		Name: "recover: a notice counts from anybody", file: "vip/notice.go", in: inGuard, run: recoverTests,
		old: "if name == \"\" || s == f.heard || !f.newer(s) {", new: "if c == nil {\n\t\tname, c = \"n2\", f.own\n\t\ts.By = name\n\t}\n\tif s == f.heard || !f.newer(s) {",
	},
	{
		Name: "recover: of two generations the older goes on", file: "vip/notice.go", in: inGuard, run: recoverTests,
		old: "return s.Generation > f.generation ||", new: "return s.Generation < f.generation ||",
	},
	{
		Name: "recover: of two of one generation both give way", file: "vip/notice.go", in: inGuard, run: recoverTests,
		old: "s.Generation == f.generation && s.By < f.name", new: "s.Generation == f.generation",
	},
	{
		Name: "recover: the next setup makes a guard forget that it was left behind", file: "vip/notice.go", in: inGuard, run: recoverTests,
		old: "if name, _ := f.speaker(idOf(by), f.heardKey); name == \"\" || !f.newer(f.heard) {", new: "{",
	},
	{
		Name: "recover: who was left behind holds on", file: "vip/decide.go", in: inGuard, run: recoverTests,
		old: "case m.superseded():", new: "case m.superseded() && !m.superseded():",
	},
	{
		Name: "recover: who was left behind grants", file: "vip/grant.go", in: inGuard, run: recoverTests,
		old: "return !m.silent(now) && !m.superseded() &&", new: "return !m.silent(now) &&",
	},
	{
		Name: "recover: a guard claims before it has listened", file: "vip/machine.go", in: inGuard, run: recoverTests,
		old: "m.listenTo = now + listenFirst", new: "m.listenTo = now",
	},
	{
		Name: "recover: one of a pair that was left behind takes", file: "vip/pair.go", in: inGuard, run: recoverTests,
		old: "!m.superseded() && now >= m.listenTo && v.linkUp", new: "now >= m.listenTo && v.linkUp",
	},
}
