package config

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

const referenceDoc = "../docs/configuration.md"

// Every example of the reference is read as an operator's file would be, without a warning, and stands in canonical form.
func TestExamplesOfTheReferenceAreRight(t *testing.T) {
	blocks := regexp.MustCompile("(?ms)^```(hcl[^\n]*)\n(.*?)^```$").FindAllStringSubmatch(readCase(t, referenceDoc), -1)
	if len(blocks) < 3 {
		t.Fatalf("%s has %d examples", referenceDoc, len(blocks))
	}
	for _, b := range blocks {
		var diags Diagnostics
		switch kind := strings.TrimSpace(b[1]); kind {
		case "hcl":
			_, diags = Parse(referenceDoc, []byte(b[2]))
		case "hcl node":
			_, diags = ParseNode(referenceDoc, []byte(b[2]))
		default:
			t.Errorf("unknown kind of example: %q", kind)
		}
		// An example may be a fragment that defines nothing yet.
		if len(diags) == 1 && diags[0].Summary == "the configuration is empty" {
			diags = nil
		}
		if len(diags) > 0 {
			var s strings.Builder
			diags.Print(&s, false)
			t.Errorf("%s\n%s", b[2], s.String())
		}
		if canonical, _ := Format(referenceDoc, []byte(b[2])); string(canonical) != b[2] {
			t.Errorf("not in canonical form:\n%s", b[2])
		}
	}
}

// Every word that the parser asks for is in the reference, and so is every word of the conditions.
func TestReferenceHasEveryWord(t *testing.T) {
	doc, err := os.ReadFile(referenceDoc)
	if err != nil {
		t.Fatal(err)
	}
	words := append(append([]string{"vip", "frontend", "backend", "defaults", "log", "cluster"}, condFields...), condFunctions...)
	for _, path := range []string{"testdata/good/everything.hcl", "testdata/good/defaults.hcl"} {
		p := newParser(path, []byte(readCase(t, path)))
		p.run()
		for _, kind := range p.words {
			words = append(words, kind...)
		}
	}
	p := newParser("node.hcl", nil)
	p.node()
	words = append(words, p.words["node"]...)
	if len(words) < 60 {
		t.Fatalf("only %d words", len(words))
	}
	for _, w := range words {
		if !regexp.MustCompile("`(check \"|sticky \"|## )?"+regexp.QuoteMeta(w)+"(\\(|\\[|`)").Match(doc) && !strings.Contains(string(doc), "\n## "+w+"\n") {
			t.Errorf("%s does not explain %q", referenceDoc, w)
		}
	}
}
