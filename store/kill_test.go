package store_test

const envChild = "KIMG_STORE_TEST_CHILD"

func child(string) {}
