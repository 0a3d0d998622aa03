// Package arch holds the rules of the tree as a test: who may import whom, who owns which dependency, that every package says
// what it is. It reads the sources itself; changing the architecture is a visible diff of this package.
package arch
