package main

import (
	"context"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	registry "github.com/larder-registry/larder/central"
	"github.com/larder-registry/larder/central/admission"
	"github.com/larder-registry/larder/internal/admin"
	"github.com/larder-registry/larder/internal/oci"
	"github.com/larder-registry/larder/internal/ociserver"
	"github.com/larder-registry/larder/internal/status"
)

const (
	// surveyEvery is how often it is looked what the registry holds, while
	// somebody wants to know; surveyPatience is how long that may take.
	surveyEvery    = time.Minute
	surveyPatience = time.Minute
)

// status gives what central says of itself: what its services do.
func (c *central) status(checks admin.Checks, services []service) admin.Status {
	return func(view status.View) *status.Document {
		doc, tally := c.observer.document("central", checks)
		doc.Traffic = status.First(tally.traffic, maxShown)
		for _, s := range services {
			if s.status != nil {
				s.status(doc, tally, view)
			}
		}
		return doc
	}
}

// surveyed is what the registry held a moment ago.
type surveyed struct {
	registry.Survey
	repositories *listing[status.Repository]
	images       *listing[status.Image]
	problem      string
}

// registryStatus tells what the registry holds.
func registryStatus(d *depository, access ociserver.Authorizer, log *logrus.Entry) func(*status.Document, *tally, status.View) {
	var (
		cache = status.Cache[*surveyed]{For: surveyEvery}
		mu    sync.Mutex
		last  *registry.Survey
	)
	look := func() *surveyed {
		ctx, cancel := context.WithTimeout(context.Background(), surveyPatience)
		defer cancel()
		mu.Lock()
		defer mu.Unlock()
		s, err := d.Survey(ctx, last)
		if err != nil {
			log.WithError(err).Warn("the registry could not be surveyed for the status page")
			return &surveyed{problem: err.Error(), images: newListing(nil, 0, status.Select, nil), repositories: newListing(nil, 0, status.SelectRepositories, nil)}
		}
		last = s
		markPrivate(ctx, s, access)
		return &surveyed{
			Survey:       *s,
			images:       newListing(s.Images, s.Total-len(s.Images), status.Select, nil),
			repositories: newListing(s.Repositories, 0, status.SelectRepositories, nil),
		}
	}
	return func(doc *status.Document, _ *tally, view status.View) {
		s := cache.Get(look)
		doc.Images, doc.Repositories = s.images.view(view), s.repositories.view(view)
		if s.problem != "" {
			doc.Checks = append(doc.Checks, status.Check{Name: "survey", Problem: s.problem, Advisory: true})
		}
		doc.Disk = &status.Disk{Bytes: s.Bytes, Blobs: s.Blobs, Free: -1, Total: -1}
		if space, err := d.depot.Space(); err == nil {
			doc.Disk.Free, doc.Disk.Total, doc.Disk.MinFree = space.Free, space.Total, space.MinFree
		}
		if err := d.Degraded(); err != nil {
			doc.Disk.Problem = err.Error()
		}
	}
}

// markPrivate marks what not everybody may pull.
func markPrivate(ctx context.Context, s *registry.Survey, access ociserver.Authorizer) {
	private := map[string]bool{}
	for i := range s.Repositories {
		r := &s.Repositories[i]
		_, err := access.Authorize(ctx, oci.Caller{}, oci.Want{Repository: r.Name, Actions: []oci.Action{oci.ActionPull}})
		r.Private = err != nil
		private[r.Name] = r.Private
	}
	for i := range s.Images {
		p, known := private[s.Images[i].Repository]
		s.Images[i].Private = p || !known
	}
}

// webhookStatus tells what the webhook was asked.
func webhookStatus(h *admission.Handler) func(*status.Document, *tally, status.View) {
	return func(doc *status.Document, t *tally, _ status.View) {
		denied, allowed := h.Verdicts()
		doc.Reviews = &status.Reviews{Counts: t.reviews, Revision: t.revision, Denied: verdicts(denied), Allowed: verdicts(allowed)}
	}
}

func verdicts(of []admission.Verdict) []status.Verdict {
	list := make([]status.Verdict, len(of))
	for i, v := range of {
		list[i] = status.Verdict(v)
	}
	return list
}
