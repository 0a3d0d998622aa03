//go:build race

package sim

// underRace: a snapshot is for the goroutine that applies. A bubble in which all wait makes it safe for others too, which the race
// detector cannot know.
const underRace = true
