package pairkey

import "testing"

func TestDeriveIsSymmetric(t *testing.T) {
	a, err := Generate()
	if err != nil {
		t.Fatal(err)
	}
	b, err := Generate()
	if err != nil {
		t.Fatal(err)
	}
	ab, err1 := Derive(a, b.PublicKey().Bytes(), "c", "a", "b")
	ba, err2 := Derive(b, a.PublicKey().Bytes(), "c", "b", "a")
	if err1 != nil || err2 != nil || ab != ba {
		t.Fatalf("the ends differ: %v %v", err1, err2)
	}
	if other, _ := Derive(a, b.PublicKey().Bytes(), "d", "a", "b"); other == ab {
		t.Error("two clusters share a key")
	}
	if self, err := Derive(a, a.PublicKey().Bytes(), "c", "a", "a"); err != nil || self == ab {
		t.Errorf("own key: %v", err)
	}
	if _, err := Derive(a, []byte("short"), "c", "a", "b"); err == nil {
		t.Error("a short public key passed")
	}
}
