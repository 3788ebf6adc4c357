package main

import (
	"context"
	"runtime"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/larder-registry/larder/internal/config"
	"github.com/larder-registry/larder/internal/oci"
	"github.com/larder-registry/larder/internal/rungroup"
	"github.com/larder-registry/larder/mirror"
)

// warmer brings the images of the configuration's warm list in, at the start
// and again after each period.
type warmer struct {
	mirror *mirror.Mirror
	images []string
	every  time.Duration
	log    *logrus.Entry
}

// service runs the warmer until it is stopped; what it is in the middle of then
// is resumed after the next start.
func (w warmer) service(cfg config.RegistryProxies) rungroup.Service {
	w.images, w.every = cfg.Warm, time.Duration(cfg.WarmEvery)
	ctx, cancel := context.WithCancel(context.Background())
	return rungroup.Service{
		Name: "warm-up",
		Run:  func() error { w.run(ctx); return nil },
		Stop: func(context.Context) error { cancel(); return nil },
	}
}

func (w warmer) run(ctx context.Context) {
	tick := time.NewTicker(w.every)
	defer tick.Stop()
	for {
		for _, image := range w.images {
			w.warm(ctx, image)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// warm brings one image in and says how it went.
func (w warmer) warm(ctx context.Context, image string) {
	ref, err := oci.ParseReference(image)
	started := time.Now()
	if err == nil {
		err = w.mirror.Warm(ctx, ref, runtime.GOOS+"/"+runtime.GOARCH)
	}
	log := w.log.WithFields(logrus.Fields{"image": image, "duration_ms": time.Since(started).Milliseconds()})
	switch {
	case ctx.Err() != nil:
	case err != nil:
		log.WithError(err).Warn("image could not be warmed; it is tried again later")
	default:
		log.Info("image is warm")
	}
}
