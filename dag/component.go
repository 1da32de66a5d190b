package dag

// This file defines what is known of the component that a step was made from.

// A Component is a component of KFP with the values that a step of it takes.
// It says nothing that the step itself does not say: KFP's pages show it.
type Component struct {
	Spec      Object `json:"spec"`                // as KFP writes it back
	Ref       Object `json:"ref"`                 // digest: the SHA-256 of its text; url: where that is from
	Arguments Object `json:"arguments,omitempty"` // texts, by the names of inputs, that may hold tokens
}
