package sim
type faultSet struct{}
func newFaultSet() *faultSet { return &faultSet{} }
