package store

import (
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"github.com/containers/storage"
	"github.com/containers/storage/types"

	"github.com/kimg/kimg"
)

// openStores guards the library's list of open stores, which is one for the whole program and which its Free changes without a lock.
var openStores sync.Mutex

// Open opens the store the options, the environment (CONTAINERS_STORAGE_CONF, STORAGE_DRIVER, STORAGE_OPTS) and
// storage.conf name, and takes back what killed kimg processes left in it. A store this program cannot work on is
// class unsupported with the reason, one on a read-only file system class readonly. Options that its driver does not have are left
// out with a warning. The caller closes the store.
func Open(o Options) (*Store, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	conf, err := storeOptions(o)
	if err != nil {
		return nil, err
	}
	var st storage.Store
	err = guarded(conf.GraphRoot, func() (err error) {
		openStores.Lock()
		defer openStores.Unlock()
		st, err = storage.GetStore(conf)
		return wrap(conf.GraphRoot, err)
	})
	if err != nil {
		return nil, err
	}
	s := &Store{st: st, log: o.Logger, noSync: o.NoSync, opened: true}
	s.recover()
	return s, nil
}

// storeOptions merges what the caller asks for with the configuration, as podman and buildah do: another driver or other
// driver options replace the configured ones as a whole.
func storeOptions(o Options) (types.StoreOptions, error) {
	conf, err := types.DefaultStoreOptions()
	if err != nil && (o.Root == "" || o.RunRoot == "") {
		return conf, wrap("storage.conf", err)
	}
	var path error
	set := func(field *string, value string) {
		if value == "" {
			return
		}
		abs, err := filepath.Abs(value)
		if err != nil {
			path = err
		}
		*field = abs
	}
	set(&conf.GraphRoot, o.Root)
	set(&conf.RunRoot, o.RunRoot)
	if path != nil {
		return conf, kimg.Wrap("storage root", path)
	}
	if o.Driver != "" && o.Driver != conf.GraphDriverName {
		conf.GraphDriverName, conf.GraphDriverOptions = o.Driver, nil
	}
	if o.Root != "" && o.Driver == "" && os.Getenv("STORAGE_DRIVER") == "" {
		// The configured driver speaks of the configured root; another root may hold another driver's store.
		if existing := existingDrivers(conf.GraphRoot); len(existing) == 1 && existing[0] != conf.GraphDriverName {
			conf.GraphDriverName, conf.GraphDriverOptions = existing[0], nil
		}
	}
	if o.DriverOptions != nil {
		conf.GraphDriverOptions = o.DriverOptions
	}
	driver, err := chooseDriver(conf.GraphRoot, conf.GraphDriverName, conf.GraphDriverOptions)
	if err != nil {
		return conf, err
	}
	conf.GraphDriverName = driver
	conf.GraphDriverOptions, err = known(driver, conf.GraphDriverOptions, o.Logger)
	return conf, err
}
