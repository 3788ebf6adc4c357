package nodeconfig

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"
)

// Between these lines stands what we put into a hosts.toml of somebody else.
const (
	blockStart = "# larder init: from here"
	blockEnd   = "# larder init: to here"
)

// addHosts puts tables, which are whole [host."…"] tables, before the hosts of a
// hosts.toml, in place of those it put there before. All else stays byte for
// byte. It fails when containerd cannot parse the file, and so ignores it, or
// when the hosts that were in it would not be found in the same order behind
// ours.
func addHosts(content []byte, tables string) ([]byte, error) {
	rest, err := withoutBlock(content)
	if err != nil {
		return nil, err
	}
	before, order, err := parseHosts(rest)
	if err != nil {
		return nil, err
	}
	ours, first, err := parseHosts([]byte(tables))
	if err != nil {
		return nil, err
	}
	for _, host := range first {
		if slices.Contains(order, host) {
			if slices.Equal(content, rest) && slices.Equal(order[:min(len(order), len(first))], first) {
				return content, nil // somebody has done it by hand
			}
			return nil, fmt.Errorf("it names %s itself, but not first", host)
		}
	}
	nl := lineBreak(rest)
	block := strings.ReplaceAll(blockStart+"\n"+tables+blockEnd+"\n", "\n", nl)
	at := firstTable(rest)
	if at == len(rest) && len(rest) > 0 && !bytes.HasSuffix(rest, []byte("\n")) {
		block = nl + block
	}
	after := slices.Concat(rest[:at], []byte(block), rest[at:])
	got, all, err := parseHosts(after)
	if err != nil {
		return nil, err
	}
	if !slices.Equal(all, slices.Concat(first, order)) {
		return nil, errors.New("its hosts would not follow the mirror in their order")
	}
	for _, host := range first {
		hosts, _ := got["host"].(map[string]any)
		wanted, _ := ours["host"].(map[string]any)
		if !reflect.DeepEqual(hosts[host], wanted[host]) {
			return nil, errors.New("the mirror's table would mean something else in it")
		}
		delete(hosts, host)
	}
	prune(got)
	prune(before)
	if !reflect.DeepEqual(got, before) {
		return nil, errors.New("it would mean something else")
	}
	return after, nil
}

// withoutBlock takes out what we put in before.
func withoutBlock(content []byte) ([]byte, error) {
	from, to := bytes.Index(content, []byte(blockStart)), bytes.Index(content, []byte(blockEnd))
	if from < 0 && to < 0 {
		return content, nil
	}
	if from < 0 || to < from || bytes.LastIndex(content, []byte(blockStart)) != from || bytes.LastIndex(content, []byte(blockEnd)) != to {
		return nil, errors.New("the lines that say where larder's hosts are do not match")
	}
	to = lineStop(content, to)
	if i := bytes.IndexByte(content[to:], '\n'); i >= 0 {
		to += i + 1
	}
	return slices.Concat(content[:from], content[to:]), nil
}

// parseHosts decodes a hosts.toml, and lists its hosts in the order in which
// containerd asks them: that of their table headers (getSortedHosts in
// core/remotes/docker/config).
func parseHosts(content []byte) (tables map[string]any, order []string, err error) {
	if tables, err = parseTOML("hosts.toml", content); err != nil {
		return nil, nil, err
	}
	p := unstable.Parser{}
	p.Reset(content)
	for p.NextExpression() {
		e := p.Expression()
		if e.Kind != unstable.Table {
			continue
		}
		var parts []string
		for it := e.Key(); it.Next(); {
			parts = append(parts, string(it.Node().Data))
		}
		if len(parts) > 1 && parts[0] == "host" && !slices.Contains(order, parts[1]) {
			order = append(order, parts[1])
		}
	}
	return tables, order, nil
}

// firstTable is where the line with the first table header starts; the end when
// there is none.
func firstTable(content []byte) int {
	p := unstable.Parser{}
	p.Reset(content)
	for p.NextExpression() {
		e := p.Expression()
		if e.Kind != unstable.Table && e.Kind != unstable.ArrayTable {
			continue
		}
		it := e.Key()
		it.Next()
		return bytes.LastIndexByte(content[:it.Node().Raw.Offset], '\n') + 1
	}
	return len(content)
}
