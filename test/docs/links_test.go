package docs

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
)

// TestLinks follows every link that stays in the repository, to its anchor.
func TestLinks(t *testing.T) {
	all := pages(t)
	byName := map[string]Page{}
	count := 0
	for _, p := range all {
		byName[p.Name] = p
		count += len(p.Links)
	}
	if count < 100 {
		t.Errorf("only %d links were found", count)
	}
	for _, p := range all {
		for _, l := range p.Links {
			if err := follow(p, l.Target, byName); err != "" {
				t.Errorf("%s:%d: %s: %s", p.Name, l.Line, l.Target, err)
			}
		}
	}
}

// follow says what is wrong with a link, or nothing. Links to elsewhere only have
// to be whole: nobody is contacted.
func follow(p Page, target string, pages map[string]Page) string {
	u, err := url.Parse(target)
	switch {
	case err != nil:
		return err.Error()
	case u.Scheme == "https" && u.Host != "", u.Scheme == "mailto":
		return ""
	case u.Scheme != "" || u.Host != "":
		return "links to elsewhere begin with https://"
	}
	name := p.Name
	if u.Path != "" {
		name = path.Join(path.Dir(p.Name), u.Path)
		if strings.HasPrefix(name, "../") {
			return "leads out of the repository"
		}
		if _, err := os.Stat(filepath.Join(root, filepath.FromSlash(name))); err != nil {
			return "there is no such file"
		}
	}
	if u.Fragment == "" {
		return ""
	}
	if to, ok := pages[name]; !ok || !to.Anchors[u.Fragment] {
		return "there is no such heading"
	}
	return ""
}

// TestEveryPageIsLinked: a page that nobody can come to is not documentation.
func TestEveryPageIsLinked(t *testing.T) {
	all := pages(t)
	linked := map[string]bool{"README.md": true}
	for _, p := range all {
		for _, l := range p.Links {
			target, _, _ := strings.Cut(l.Target, "#")
			if target == "" || strings.Contains(target, "://") {
				continue
			}
			linked[path.Join(path.Dir(p.Name), target)] = true
		}
	}
	for _, p := range all {
		if strings.HasPrefix(p.Name, "docs/") && !record(p) && !linked[p.Name] {
			t.Errorf("%s: no page links to it", p.Name)
		}
	}
}

// TestPictures: a picture says what it shows to who cannot see it, is read in dark and
// light, and fetches nothing.
func TestPictures(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(root, "docs/images/*.svg"))
	if err != nil || len(files) == 0 {
		t.Fatalf("pictures: %v, %v", files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		decoder := xml.NewDecoder(bytes.NewReader(text))
		elements := map[string]int{}
		for {
			token, err := decoder.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			if start, ok := token.(xml.StartElement); ok {
				elements[start.Name.Local]++
			}
		}
		if elements["title"] == 0 || elements["desc"] == 0 || elements["script"]+elements["image"]+elements["foreignObject"] > 0 {
			t.Errorf("%s: elements %v", file, elements)
		}
		if !bytes.Contains(text, []byte("prefers-color-scheme: dark")) {
			t.Errorf("%s: nothing is said for dark", file)
		}
	}
}
