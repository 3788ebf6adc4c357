package monitoring

import "testing"

// TestEverythingIsSeen has everything happen, and looks at it in every way there
// is.
func TestEverythingIsSeen(t *testing.T) {
	w := startWorld(t)
	// A counter that is seen for the first time has not risen yet.
	w.round(t, 1)
	w.scraped(t)
	w.gone.Kill()
	w.round(t, 2)
	w.spoil(t, w.certificates)
	w.hold(t)
	w.scraped(t)
	t.Run("happened", func(t *testing.T) { testItHappened(t, w) })
	t.Run("metrics", func(t *testing.T) { testMetrics(t, w) })
	t.Run("names", func(t *testing.T) { testNames(t, w) })
	t.Run("dashboard", func(t *testing.T) { testDashboard(t, w) })
	t.Run("alerts", func(t *testing.T) { testAlerts(t, w) })
}
