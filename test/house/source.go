package house

import (
	"go/ast"
	"go/token"
	"slices"
	"strings"
)

// maxLines is where a file stops being one idea. Tests may be longer: a table
// grows with what it holds.
const maxLines = 400

// maxMethods is how many methods an interface may have.
const maxMethods = 6

// packageDocs reports packages that do not say what they are.
func packageDocs(files []file) []Violation {
	first := map[string]file{}
	documented := map[string]bool{}
	for _, f := range files {
		if f.test() {
			continue
		}
		if _, seen := first[f.pkg()]; !seen {
			first[f.pkg()] = f
		}
		if f.ast.Doc != nil {
			documented[f.pkg()] = true
		}
	}
	var violations []Violation
	for pkg, f := range first {
		if !documented[pkg] {
			violations = append(violations, f.at(f.ast.Name, "package %s has no doc comment", pkg))
		}
	}
	return violations
}

// declarations reports what a file must not declare, and exported names
// without a doc comment.
func declarations(f file) []Violation {
	var violations []Violation
	if f.lines > maxLines && !f.test() {
		violations = append(violations, Violation{File: f.path, Line: maxLines + 1, Text: "the file is longer than 400 lines: split it"})
	}
	for _, decl := range f.ast.Decls {
		switch d := decl.(type) {
		case *ast.FuncDecl:
			if d.Recv == nil && d.Name.Name == "init" {
				violations = append(violations, f.at(d, "init() is not used; construct things where they are needed"))
			}
			if d.Doc == nil && exportedFunc(d) && !f.test() {
				violations = append(violations, f.at(d, "exported %s has no doc comment", d.Name.Name))
			}
		case *ast.GenDecl:
			violations = append(violations, declared(f, d)...)
		}
	}
	ast.Inspect(f.ast, func(n ast.Node) bool {
		if i, ok := n.(*ast.InterfaceType); ok && i.Methods.NumFields() > maxMethods {
			violations = append(violations, f.at(i, "the interface has more than six methods"))
		}
		return true
	})
	return violations
}

// exportedFunc reports whether a function, or a method of an exported type, can
// be called from outside.
func exportedFunc(d *ast.FuncDecl) bool {
	if !d.Name.IsExported() {
		return false
	}
	if d.Recv == nil {
		return true
	}
	t := d.Recv.List[0].Type
	if star, ok := t.(*ast.StarExpr); ok {
		t = star.X
	}
	if generic, ok := t.(*ast.IndexExpr); ok {
		t = generic.X
	}
	name, ok := t.(*ast.Ident)
	return ok && name.IsExported()
}

func declared(f file, d *ast.GenDecl) []Violation {
	if f.test() {
		return nil
	}
	var violations []Violation
	for _, spec := range d.Specs {
		switch s := spec.(type) {
		case *ast.TypeSpec:
			if s.Name.IsExported() && s.Doc == nil && d.Doc == nil {
				violations = append(violations, f.at(s, "exported %s has no doc comment", s.Name.Name))
			}
		case *ast.ValueSpec:
			for i, name := range s.Names {
				if name.IsExported() && s.Doc == nil && d.Doc == nil && s.Comment == nil {
					violations = append(violations, f.at(s, "exported %s has no doc comment", name.Name))
				}
				if d.Tok == token.VAR && mutable(f, d, s, i) {
					violations = append(violations, f.at(s, "package-level variable %s can change; make it a field", name.Name))
				}
			}
		}
	}
	return violations
}

// mutable reports whether the i-th variable of s is there to be changed: it
// starts empty, or it is a map, a channel or a lock. Sentinel errors, compiled
// patterns and tables have a value from the start. cmd's version is written by
// the linker, and embedded files by the compiler. Programs below test/ are
// nobody's library.
func mutable(f file, d *ast.GenDecl, s *ast.ValueSpec, i int) bool {
	name := s.Names[i].Name
	if name == "_" || strings.HasPrefix(f.path, "test/") || embedded(d, s) || f.pkg() == "cmd/larder" && name == "version" {
		return false
	}
	if i >= len(s.Values) {
		return true
	}
	value := s.Values[i]
	if u, ok := value.(*ast.UnaryExpr); ok {
		value = u.X
	}
	switch v := value.(type) {
	case *ast.CompositeLit:
		if selector, ok := v.Type.(*ast.SelectorExpr); ok {
			return isPackage(selector, "sync") || isPackage(selector, "atomic")
		}
		_, isMap := v.Type.(*ast.MapType)
		return isMap
	case *ast.CallExpr:
		fun, ok := v.Fun.(*ast.Ident)
		return ok && (fun.Name == "make" || fun.Name == "new")
	}
	return false
}

func embedded(d *ast.GenDecl, s *ast.ValueSpec) bool {
	for _, doc := range []*ast.CommentGroup{d.Doc, s.Doc} {
		if doc != nil && slices.ContainsFunc(doc.List, func(c *ast.Comment) bool { return strings.HasPrefix(c.Text, "//go:embed ") }) {
			return true
		}
	}
	return false
}

// calls reports uses of what a package has no business with.
func calls(f file) []Violation {
	var violations []Violation
	command := f.pkg() == "cmd/larder" || strings.HasPrefix(f.path, "test/")
	ast.Inspect(f.ast, func(n ast.Node) bool {
		s, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		switch {
		case isPackage(s, "os") && slices.Contains([]string{"Exit", "Getenv", "LookupEnv", "Environ"}, s.Sel.Name) && !command && !f.test():
			violations = append(violations, f.at(s, "os.%s: only cmd reads the environment and exits", s.Sel.Name))
		case isPackage(s, "time") && s.Sel.Name == "Sleep":
			violations = append(violations, f.at(s, "time.Sleep: wait for what is to happen, on a channel or a context"))
		case f.test() && slices.Contains([]string{"Skip", "Skipf", "SkipNow"}, s.Sel.Name) && onTesting(s):
			violations = append(violations, f.at(s, "a test must not skip itself"))
		}
		return true
	})
	return violations
}

// isPackage reports whether s selects from an imported package called name.
func isPackage(s *ast.SelectorExpr, name string) bool {
	x, ok := s.X.(*ast.Ident)
	return ok && x.Name == name
}

// onTesting reports whether s selects from what tests call their testing.TB.
func onTesting(s *ast.SelectorExpr) bool {
	x, ok := s.X.(*ast.Ident)
	return ok && slices.Contains([]string{"t", "b", "f", "tb"}, x.Name)
}

// onlySelects reports whether everything f takes from pkg is called name.
func onlySelects(f file, pkg, name string) bool {
	only := true
	ast.Inspect(f.ast, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok && isPackage(s, pkg) && s.Sel.Name != name {
			only = false
		}
		return true
	})
	return only
}
