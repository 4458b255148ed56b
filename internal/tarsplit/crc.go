package tarsplit

import "encoding/binary"

// The checksum of a file in a tar-split record is CRC-64/ISO as hash/crc64 computes it: bits reflected, inverted before
// and after. Its polynomial is P = x^64 + x^4 + x^3 + x + 1, sparse enough to fold without tables:
//
//	x^64  ≡ 1 + x   + x^3  + x^4  (mod P)
//	x^512 ≡ 1 + x^8 + x^24 + x^32 (the eighth power: squaring in characteristic two doubles every exponent)
//
// A word loaded little-endian holds 64 coefficients, the lowest bit the highest power, so that multiplying by x^k is a
// shift right by k and what falls out belongs to the word before. Eight words are carried forward by 512 bits at a time.

// Update returns the CRC-64/ISO of what crc covers followed by p.
func Update(crc uint64, p []byte) uint64 {
	s := ^crc
	if len(p) >= 128 {
		s, p = crcFold(s, p)
	}
	for ; len(p) >= 8; p = p[8:] {
		s = crcTimes64(s ^ binary.LittleEndian.Uint64(p))
	}
	for _, b := range p {
		top := (s ^ uint64(b)) << 56
		s = s>>8 ^ top ^ top>>1 ^ top>>3 ^ top>>4
	}
	return ^s
}

// crcTimes64 returns s·x^64 mod P.
func crcTimes64(s uint64) uint64 {
	out := s<<63 ^ s<<61 ^ s<<60
	return s ^ s>>1 ^ s>>3 ^ s>>4 ^ out ^ out>>1 ^ out>>3 ^ out>>4
}

// crcLow and crcHigh are the two words of a·x^512 mod P.
func crcLow(a uint64) uint64  { return a ^ a>>8 ^ a>>24 ^ a>>32 }
func crcHigh(a uint64) uint64 { return a<<56 ^ a<<40 ^ a<<32 }

// crcFold takes whole blocks of 64 bytes off p and returns the state after them and the rest.
func crcFold(s uint64, p []byte) (uint64, []byte) {
	le := binary.LittleEndian
	a0, a1, a2, a3 := s^le.Uint64(p), le.Uint64(p[8:]), le.Uint64(p[16:]), le.Uint64(p[24:])
	a4, a5, a6, a7 := le.Uint64(p[32:]), le.Uint64(p[40:]), le.Uint64(p[48:]), le.Uint64(p[56:])
	for p = p[64:]; len(p) >= 64; p = p[64:] {
		q := p[:64:64]
		a7 ^= crcHigh(a0) // the first word's overflow lands on the last word of the same block
		a0 = crcLow(a0) ^ crcHigh(a1) ^ le.Uint64(q)
		a1 = crcLow(a1) ^ crcHigh(a2) ^ le.Uint64(q[8:])
		a2 = crcLow(a2) ^ crcHigh(a3) ^ le.Uint64(q[16:])
		a3 = crcLow(a3) ^ crcHigh(a4) ^ le.Uint64(q[24:])
		a4 = crcLow(a4) ^ crcHigh(a5) ^ le.Uint64(q[32:])
		a5 = crcLow(a5) ^ crcHigh(a6) ^ le.Uint64(q[40:])
		a6 = crcLow(a6) ^ crcHigh(a7) ^ le.Uint64(q[48:])
		a7 = crcLow(a7) ^ le.Uint64(q[56:])
	}
	s = 0
	for _, a := range [8]uint64{a0, a1, a2, a3, a4, a5, a6, a7} {
		s = crcTimes64(s ^ a)
	}
	return s, p
}
