//! Objects that are also the dictionaries people expect: JSON, read into a `dict` when somebody first looks into it.

use pyo3::exceptions::PyAttributeError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyDict;
use serde::Serialize;

/// JSON text as Python's objects.
pub(crate) fn loads<'py>(py: Python<'py>, json: &str) -> PyResult<Bound<'py, PyAny>> {
    static LOADS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    LOADS.import(py, "json", "loads")?.call1((json,))
}

/// Plain data as Python's objects.
pub(crate) fn plain<'py>(py: Python<'py>, data: &impl Serialize) -> PyResult<Bound<'py, PyAny>> {
    loads(py, &text(data))
}

/// Plain data as JSON.
pub(crate) fn text(data: &impl Serialize) -> String {
    serde_json::to_string(data).expect("it is plain data with string keys")
}

/// The dictionary of an object, once it was asked for.
pub(crate) struct Dictionary(PyOnceLock<Py<PyDict>>);

impl Default for Dictionary {
    fn default() -> Self {
        Self(PyOnceLock::new())
    }
}

impl Dictionary {
    pub(crate) fn of<'py>(&self, py: Python<'py>, data: &impl Serialize) -> PyResult<&Bound<'py, PyDict>> {
        let read = || Ok(plain(py, data)?.cast_into::<PyDict>().map_err(PyErr::from)?.unbind());
        self.0.get_or_try_init(py, read).map(|dictionary| dictionary.bind(py))
    }
}

/// An attribute that the object has no field for: a key of its dictionary.
pub(crate) fn attribute<'py>(
    dictionary: &Bound<'py, PyDict>,
    class: &str,
    name: &str,
) -> PyResult<Bound<'py, PyAny>> {
    // Python asks for many names of its own that are nobody's keys (`__array__`, `_repr_png_`).
    let found = if name.starts_with('_') { None } else { dictionary.get_item(name)? };
    found.ok_or_else(|| PyAttributeError::new_err(format!("'{class}' has no attribute or key '{name}'")))
}

/// Adds what a mapping has to a class with a method `dictionary(py) -> PyResult<&Bound<PyDict>>` and `data() -> &impl
/// Serialize`.
macro_rules! dictionary {
    ($class:ident) => {
        #[pymethods]
        impl $class {
            fn __getitem__<'py>(
                &self,
                py: Python<'py>,
                key: &Bound<'py, PyAny>,
            ) -> PyResult<Bound<'py, PyAny>> {
                self.dictionary(py)?.as_any().get_item(key)
            }

            fn __contains__(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<bool> {
                pyo3::types::PyDictMethods::contains(self.dictionary(py)?, key)
            }

            fn __len__(&self, py: Python<'_>) -> PyResult<usize> {
                Ok(pyo3::types::PyDictMethods::len(self.dictionary(py)?))
            }

            fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, pyo3::types::PyIterator>> {
                self.dictionary(py)?.as_any().try_iter()
            }

            fn __getattr__<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
                $crate::dictionary::attribute(self.dictionary(py)?, stringify!($class), name)
            }

            /// The value of a key, or the default.
            #[pyo3(signature = (key, default=None, /))]
            fn get<'py>(
                &self,
                py: Python<'py>,
                key: &Bound<'py, PyAny>,
                default: Option<Bound<'py, PyAny>>,
            ) -> PyResult<Option<Bound<'py, PyAny>>> {
                Ok(self.dictionary(py)?.get_item(key)?.or(default))
            }

            /// The keys, as of a dictionary.
            fn keys<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
                self.dictionary(py)?.call_method0("keys")
            }

            /// The values, as of a dictionary.
            fn values<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
                self.dictionary(py)?.call_method0("values")
            }

            /// The items, as of a dictionary.
            fn items<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
                self.dictionary(py)?.call_method0("items")
            }

            /// A dictionary of its own, all the way down.
            fn to_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
                $crate::dictionary::plain(py, self.data())
            }

            /// The same as JSON text.
            fn to_json(&self) -> String {
                $crate::dictionary::text(self.data())
            }
        }
    };
}
pub(crate) use dictionary;
