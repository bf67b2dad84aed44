-- What metadata hold by a key, as text. JSON whose text depends on who writes it (fractions, lists, objects) makes a call odd: see metadata_is_odd.sql.
multiIf(
  JSONType(metadata, {${key}:String}) = 'String', JSONExtractString(metadata, {${key}:String}),
  JSONType(metadata, {${key}:String}) = 'Null', null,
  JSONExtractRaw(metadata, {${key}:String})
)
