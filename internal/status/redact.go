package status

// Redact takes out what only those may see who run the process: names of private
// images and repositories, what the log and upstreams said (which may hold
// such names), and what the webhook was asked about. What stays is no more than
// the metrics tell.
func (d *Document) Redact() {
	d.Names = false
	each(d.Fills, func(f *Fill) {
		if f.Private {
			f.Repository, f.Digest = "", ""
		}
	})
	each(d.Images, (*Image).redact)
	each(d.Repositories, (*Repository).redact)
	each(d.Upstreams, func(u *Upstream) { u.Error = "" })
	each(d.Errors, func(e *Event) {
		*e = Event{At: e.At, Level: e.Level, Message: e.Message, Count: e.Count}
	})
	if d.Reviews != nil {
		d.Reviews = &Reviews{
			Counts: d.Reviews.Counts, Revision: d.Reviews.Revision,
			Denied: withoutNames(d.Reviews.Denied), Allowed: withoutNames(d.Reviews.Allowed),
		}
	}
}

func (i *Image) redact() {
	if i.Private {
		i.Repository, i.Tag, i.Digest = "", "", ""
	}
}

func (r *Repository) redact() {
	if r.Private {
		r.Name = ""
	}
}

// each changes a copy of the items: others may be looking at them.
func each[T any](l *List[T], change func(*T)) {
	if l == nil {
		return
	}
	items := append([]T{}, l.Items...)
	for i := range items {
		change(&items[i])
	}
	l.Items = items
}

func withoutNames(all []Verdict) []Verdict {
	list := []Verdict{}
	for _, v := range all {
		list = append(list, Verdict{At: v.At, Operation: v.Operation, Resource: v.Resource, Decision: v.Decision, Mode: v.Mode, DryRun: v.DryRun})
	}
	return list
}
