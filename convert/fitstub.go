package convert

import "github.com/kimg/kimg"

func fromSchema1(doc Document, layers []Layer, o Options) (Config, Report, error) {
	return Config{}, nil, kimg.Errorf(kimg.ErrUnsupported, "manifest", "schema-version: Docker schema 1 images cannot be read yet")
}

func toSchema1(c Config, layers []Layer, o Options) (manifest []byte, report Report, err error) {
	return nil, nil, kimg.Errorf(kimg.ErrUnsupported, "manifest", "schema-version: Docker schema 1 images cannot be written yet")
}
