package convert

import "reflect"

// IndexType is the type that an index is converted as.
var IndexType = reflect.TypeFor[index]()
