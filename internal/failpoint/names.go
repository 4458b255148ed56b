// Package failpoint lets tests kill or fail the program at named places. A normal build holds none of it: without the
// build tag kimg_failpoints [Here] is an inlined `return nil`.
package failpoint

import "slices"

// names lists every place; a test holds it equal to what the source uses.
var names = [...]string{
	"change.begin",         // nothing has happened
	"change.staged",        // everything is staged, nothing synced
	"change.synced",        // staged data is durable, nothing recorded
	"change.intent",        // the intent file is written
	"change.recorded",      // everything recorded, not synced
	"change.done",          // everything durable, staging and intent not yet cleaned up
	"layer.stage.begin",    // the staging directory exists
	"layer.stage.end",      // the staging directory is filled
	"layer.apply.begin",    // the digest lock is held
	"layer.apply.end",      // the layer is recorded
	"image.put.begin",      // the image is about to be recorded
	"image.put.end",        // the image is recorded
	"image.delete.begin",   // the image is about to be removed
	"image.delete.end",     // the image is removed
	"container.new.begin",  // the container is about to be recorded
	"container.new.record", // the container is recorded, its state file is not
	"container.new.state",  // the state file is written
	"state.save.begin",     // the container's directory is locked, nothing is written
	"state.save.end",       // the state file is replaced and durable
	"file.write.begin",     // the temporary file of an atomic write is there, empty
	"file.write.synced",    // it is written and synced
	"file.write.renamed",   // it has its name, not durably
	"container.rm.begin",   // the container is about to be removed
	"container.rm.end",     // the container is removed
	"work.held",            // a layer to write to is held, and not made
	"work.made",            // it is made, and not mounted
	"work.mounted",         // it is mounted
	"hold.begin",           // a hold is about to end
	"hold.dropped",         // its layer to write to is gone
	"hold.released",        // nobody is told to wait for its layers any more, and they are there
	"recover.begin",        // an interrupted change was found and is locked
	"recover.step",         // one of its remains is cleared
	"recover.end",          // everything of it is cleared but its intent file
}

// Names returns the name of every place, so that a test can go through all of them.
func Names() []string { return slices.Clone(names[:]) }
