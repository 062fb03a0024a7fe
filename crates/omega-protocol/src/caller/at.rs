//! A place in a request, so that whatever is wrong there can be named. The name is only put together when it is needed.

use serde_json::{Map, Value};

use super::chat_completions::not_json_of_this_kind;
use crate::{Extra, FunctionDefinition, RequestError, Tool};

/// How a protocol writes a place in a list.
#[derive(Clone, Copy, Debug)]
pub(super) enum Notation {
    /// `messages.2.content`, as Anthropic does.
    Dots,
    /// `input[2].content`, as OpenAI and Google do.
    Brackets,
}

#[derive(Clone, Copy)]
enum Step<'p> {
    Root,
    Field(&'p str),
    Item(usize),
}

/// The object in a body.
pub(super) fn object(body: &[u8]) -> Result<Value, RequestError> {
    let value: Value = serde_json::from_slice(body).map_err(|error| not_json_of_this_kind(&error))?;
    match value.is_object() {
        true => Ok(value),
        false => Err(RequestError { field: None, message: "the body is not a JSON object".into() }),
    }
}

/// A value and where it stands.
#[derive(Clone, Copy)]
pub(super) struct At<'p, 'v> {
    pub(super) value: &'v Value,
    parent: Option<&'p At<'p, 'v>>,
    step: Step<'p>,
    notation: Notation,
}

static NULL: Value = Value::Null;

impl<'p, 'v> At<'p, 'v> {
    /// The request itself.
    pub(super) fn root(value: &'v Value, notation: Notation) -> Self {
        Self { value, parent: None, step: Step::Root, notation }
    }

    /// A field; null if it is not there.
    pub(super) fn field<'c>(&'c self, name: &'c str) -> At<'c, 'v> {
        let value = self.value.get(name).unwrap_or(&NULL);
        At { value, parent: Some(self), step: Step::Field(name), notation: self.notation }
    }

    /// The field under the first of these names that is there; Google's fields have two.
    pub(super) fn either<'c>(&'c self, names: [&'c str; 2]) -> At<'c, 'v> {
        let name = if self.value.get(names[1]).is_some() { names[1] } else { names[0] };
        self.field(name)
    }

    /// The items of a list; none of what is not there.
    pub(super) fn items<'c>(&'c self) -> Result<impl Iterator<Item = At<'c, 'v>>, RequestError> {
        let items: &'v [Value] = match self.value {
            Value::Null => &[],
            Value::Array(items) => items,
            _ => return Err(self.wrong("a list")),
        };
        Ok(items.iter().enumerate().map(move |(at, value)| At {
            value,
            parent: Some(self),
            step: Step::Item(at),
            notation: self.notation,
        }))
    }

    /// The fields of an object; none of what is not there.
    pub(super) fn fields(&self) -> Result<Option<&'v Map<String, Value>>, RequestError> {
        match self.value {
            Value::Null => Ok(None),
            Value::Object(fields) => Ok(Some(fields)),
            _ => Err(self.wrong("an object")),
        }
    }

    /// Refuses every field but these: what is not understood here would be lost in silence.
    pub(super) fn only(&self, known: &[&str], why: &str) -> Result<(), RequestError> {
        let unknown = self
            .fields()?
            .into_iter()
            .flatten()
            .find(|(name, value)| !known.contains(&name.as_str()) && !value.is_null());
        match unknown {
            Some((name, _)) => Err(self.field(name).refused(why)),
            None => Ok(()),
        }
    }

    pub(super) fn is_absent(&self) -> bool {
        self.value.is_null()
    }

    pub(super) fn text(&self) -> Result<Option<&'v str>, RequestError> {
        match self.value {
            Value::Null => Ok(None),
            Value::String(text) => Ok(Some(text)),
            _ => Err(self.wrong("a string")),
        }
    }

    /// A string that must be there.
    pub(super) fn needed(&self) -> Result<&'v str, RequestError> {
        self.text()?.ok_or_else(|| self.refused("it is missing"))
    }

    pub(super) fn number(&self) -> Result<Option<f64>, RequestError> {
        match self.value {
            Value::Null => Ok(None),
            Value::Number(number) => Ok(number.as_f64()),
            _ => Err(self.wrong("a number")),
        }
    }

    pub(super) fn count(&self) -> Result<Option<u64>, RequestError> {
        match self.value {
            Value::Null => Ok(None),
            value => value.as_u64().map(Some).ok_or_else(|| self.wrong("a whole number, 0 or more")),
        }
    }

    pub(super) fn integer(&self) -> Result<Option<i64>, RequestError> {
        match self.value {
            Value::Null => Ok(None),
            value => value.as_i64().map(Some).ok_or_else(|| self.wrong("a whole number")),
        }
    }

    pub(super) fn switch(&self) -> Result<Option<bool>, RequestError> {
        match self.value {
            Value::Null => Ok(None),
            Value::Bool(on) => Ok(Some(*on)),
            _ => Err(self.wrong("true or false")),
        }
    }

    /// A list of strings.
    pub(super) fn texts(&self) -> Result<Vec<String>, RequestError> {
        self.items()?.map(|item| item.needed().map(str::to_owned)).collect()
    }

    /// The function that stands here.
    ///
    /// - `parameters`, `strict`: what each protocol says in its own way.
    pub(super) fn function(
        &self,
        parameters: Option<Value>,
        strict: Option<bool>,
    ) -> Result<Tool, RequestError> {
        let function = FunctionDefinition {
            name: self.field("name").needed()?.to_owned(),
            description: self.field("description").text()?.map(str::to_owned),
            parameters,
            strict,
            extra: Extra::new(),
        };
        Ok(Tool { kind: "function".to_owned(), function: Some(function), extra: Extra::new() })
    }

    /// A copy of an object; nothing of what is not there.
    pub(super) fn copied(&self) -> Result<Option<Value>, RequestError> {
        Ok(self.fields()?.map(|_| self.value.clone()))
    }

    /// This cannot be passed on.
    pub(super) fn refused(&self, why: impl AsRef<str>) -> RequestError {
        RequestError::at(self.path(), why)
    }

    fn wrong(&self, expected: &str) -> RequestError {
        let found = match self.value {
            Value::Null => "nothing",
            Value::Bool(_) => "true or false",
            Value::Number(_) => "a number",
            Value::String(_) => "a string",
            Value::Array(_) => "a list",
            Value::Object(_) => "an object",
        };
        self.refused(format!("expected {expected}, found {found}"))
    }

    fn path(&self) -> String {
        let before = self.parent.map(At::path).unwrap_or_default();
        match (self.step, self.notation) {
            (Step::Root, _) => before,
            (Step::Field(name), _) if before.is_empty() => shortened(name),
            (Step::Field(name), _) => format!("{before}.{}", shortened(name)),
            (Step::Item(at), Notation::Dots) => format!("{before}.{at}"),
            (Step::Item(at), Notation::Brackets) => format!("{before}[{at}]"),
        }
    }
}

/// A name of somebody else's making.
fn shortened(name: &str) -> String {
    const MOST: usize = 80;
    name.chars().filter(|c| !c.is_control()).take(MOST).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_place_is_named_as_its_protocol_names_it() {
        let value = json!({"messages": [{"content": 7}]});
        for (notation, expected) in
            [(Notation::Dots, "messages.0.content"), (Notation::Brackets, "messages[0].content")]
        {
            let root = At::root(&value, notation);
            let messages = root.field("messages");
            let first = messages.items().expect("a list").next().expect("one");
            let error = first.field("content").text().expect_err("a number");
            assert_eq!(error.field.as_deref(), Some(expected));
            assert_eq!(error.message, format!("`{expected}`: expected a string, found a number"));
        }
    }
}
