package ociserver

import (
	"testing"
	"time"
)

func TestClientsAreBoundedApart(t *testing.T) {
	const perSecond = 1 << 20
	r := newRates(perSecond)
	first, doneFirst := r.take("10.0.0.1:1000")
	same, doneSame := r.take("10.0.0.1:2000")
	other, doneOther := r.take("[fd00::1]:1000")
	if first != same || first == other {
		t.Error("connections of one address are one client, those of others are not")
	}
	now := time.Now()
	if !first.AllowN(now, paceStep) || !other.AllowN(now, paceStep) {
		t.Error("a client has to wait for its first bytes")
	}
	sent := paceStep
	for same.AllowN(now, paceStep) {
		sent += paceStep
	}
	if limit := perSecond / 5; sent > limit {
		t.Errorf("%d bytes at once, want at most %d", sent, limit)
	}
	doneFirst()
	doneSame()
	doneOther()
	if len(r.of) != 0 {
		t.Errorf("%d clients are remembered after they left", len(r.of))
	}
	if turn, done := newRates(0).take("10.0.0.1:1000"); turn != nil {
		t.Error("no bound is one")
	} else {
		done()
	}
}
