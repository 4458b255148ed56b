// Package transfer brings whole images into a store, from wherever they lie: [Pull] for one image, [Read] and [Image.Unpack] for
// those that are recorded together with others, [Layers] for whoever writes documents of his own.
//
// # Order
//
// The documents are read and checked first: nothing is fetched for an image that is ambiguous, for another platform, or whose
// configuration names more or fewer layers than its manifest. Layers that the store has are not fetched, up to the first that is
// missing. From there on blobs are fetched, decompressed, verified, hashed and unpacked side by side, each in one pass, into
// directories that nobody sees. Only when all are there and right they are synced and recorded, base first, and then the image.
//
// # Failures
//
// A blob of another digest or size, and a layer of another diffID, are class integrity. Whatever fails, and when ctx is
// cancelled, the store is as it was. When somebody else makes the same layers at the same time, his are used; when he removes layers
// that were to be used again, they are fetched.
package transfer
