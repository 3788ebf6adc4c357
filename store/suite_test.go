package store_test

import (
	"testing"

	"github.com/larder-registry/larder/store"
	"github.com/larder-registry/larder/store/storetest"
)

func TestStore(t *testing.T) {
	t.Run("unsynced", func(t *testing.T) {
		storetest.Run(t, func(t *testing.T, cfg store.Config) (*store.Store, error) {
			return store.Open(t.Context(), cfg)
		})
	})
	t.Run("synced", func(t *testing.T) {
		storetest.Run(t, func(t *testing.T, cfg store.Config) (*store.Store, error) {
			cfg.SyncWrites = true
			return store.Open(t.Context(), cfg)
		})
	})
}
